"""Converts the config.json of a Hugging Face T5Gemma or T5Gemma 2, field by field."""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.checkpoints.frozen.huggingface_stack import (
    first_id,
    fixed,
    softcap,
    stack_fields,
    stack_to_huggingface,
)
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.t5gemma_config import T5GemmaConfig

_IDS = (
    ("pad_id", "pad_token_id", 0),
    ("eos_id", "eos_token_id", 1),
    ("decoder_start_id", "bos_token_id", 2),
)


def t5gemma_to_huggingface(config: T5GemmaConfig, dtype: str) -> dict[str, Any]:
    """Returns the config.json of a T5Gemma, for `t5gemma_config` and `transformers`."""
    common: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs, _ in _IDS}
    common |= {"bos_token_id": config.start_id, "vocab_size": config.vocab_size}
    common["tie_word_embeddings"] = config.tie_embeddings
    cap = {"final_logit_softcapping": config.final_softcap or None}
    return {
        "architectures": ["T5GemmaForConditionalGeneration"],
        "model_type": "t5gemma",
        "is_encoder_decoder": True,
        **common,
        "encoder": {**common, **cap, **stack_to_huggingface(config.encoder)},
        "decoder": {**common, **cap, **stack_to_huggingface(config.decoder)},
        "torch_dtype": dtype,
    }


def t5gemma_config(fields: Mapping[str, Any], *, name: str, source: str) -> T5GemmaConfig:
    """Returns the config that a config.json describes.

    Of several ids that end a sequence, the first is used.

    Args:
      fields: of the config.json.
      name: the model's name.
      source: the file, for messages.

    Raises:
      UserError: a field is unsupported or invalid.
    """
    parts: dict[str, Any] = {part: fields.get(part) for part in ("encoder", "decoder")}
    for part, found in parts.items():
        if not isinstance(found, dict):
            raise UserError(f"{source} has {part}={shown(found)}; expected a JSON object.")
    merged = fields.get("model_type") == "t5gemma2"
    kind = "gemma3" if merged else "gemma2"
    if merged:  # with the text's part of the encoder, and another for images
        parts["encoder"] = parts["encoder"].get("text_config", {})
    decoder = parts["decoder"]
    fixed(fields, {"is_encoder_decoder": True, "quantization_config": None}, source)
    vocab_size = fields.get("vocab_size", decoder.get("vocab_size", 262208 if merged else 256000))
    for part, found in parts.items():
        if found.get("vocab_size", vocab_size) != vocab_size:
            raise UserError(
                f"{source} has vocab_size={shown(found['vocab_size'])} in {part}, but "
                f"{shown(vocab_size)} elsewhere; expected one vocabulary."
            )
    ids = {
        ours: first_id(fields.get(theirs, decoder.get(theirs)), default)
        for ours, theirs, default in _IDS
    }
    if decoder.get("bos_token_id") is not None:
        ids["decoder_start_id"] = decoder["bos_token_id"]
    tied = fields.get("tie_word_embeddings", True)
    if type(tied) is not bool:
        raise UserError(f"{source} has tie_word_embeddings={shown(tied)}; expected true or false.")
    try:
        return T5GemmaConfig.from_json(
            {
                "name": name,
                "vocab_size": vocab_size,
                **{
                    part: stack_fields(found, kind, f"{part} of {source}")
                    for part, found in parts.items()
                },
                "tie_embeddings": tied,
                "final_softcap": softcap(
                    decoder, "final_logit_softcapping", None if merged else 30.0, source
                ),
                "merged": merged,
                **ids,
            }
        )
    except UserError as error:
        raise UserError(f"Can't use {source}: {error}") from error
