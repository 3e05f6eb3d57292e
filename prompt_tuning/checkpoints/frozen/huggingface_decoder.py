"""Converts the config.json of a Hugging Face decoder-only model, field by field."""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.checkpoints.frozen.huggingface_stack import (
    first_id,
    fixed,
    softcap,
    stack_fields,
)
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig

KIND_OF = {
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
"""The model type -> the kind of a `DecoderOnlyConfig`."""

_VOCAB_SIZES = {
    **{"gemma2": 256000, "gemma3": 262208, "llama": 32000, "mistral": 32000},
    **dict.fromkeys(("qwen2", "qwen3"), 151936),
}


def decoder_only_config(fields: Mapping[str, Any], *, name: str, source: str) -> DecoderOnlyConfig:
    """Returns the config that a config.json describes; of a Gemma 3 with images, the text's part.

    Of several ids that end a sequence, the first is used.

    Args:
      fields: of the config.json, with a `model_type` of `KIND_OF`.
      name: the model's name.
      source: the file, for messages.

    Raises:
      UserError: a field is unsupported or invalid.
    """
    kind = KIND_OF[fields["model_type"]]
    if "text_config" in fields:
        text = fields["text_config"]
        if not isinstance(text, dict):
            raise UserError(f"{source} has text_config={shown(text)}; expected a JSON object.")
        # Ids and tying stand outside.
        fields = {**{key: each for key, each in fields.items() if each is not None}, **text}
    fixed(fields, {"is_encoder_decoder": False, "quantization_config": None}, source)
    gemma = kind.startswith("gemma")
    tied = fields.get("tie_word_embeddings", gemma)
    if type(tied) is not bool:
        raise UserError(f"{source} has tie_word_embeddings={shown(tied)}; expected true or false.")
    cap = 30.0 if kind == "gemma2" else None
    try:
        return DecoderOnlyConfig.from_json(
            {
                "name": name,
                "kind": kind,
                "vocab_size": fields.get("vocab_size", _VOCAB_SIZES[kind]),
                "decoder": stack_fields(fields, kind, source),
                "tie_embeddings": tied,
                "final_softcap": softcap(fields, "final_logit_softcapping", cap, source)
                if gemma
                else 0.0,
                "scale_embeddings": gemma,
                "eos_id": first_id(fields.get("eos_token_id"), 1 if gemma else 2),
            }
        )
    except UserError as error:
        raise UserError(f"Can't use {source}: {error}") from error
