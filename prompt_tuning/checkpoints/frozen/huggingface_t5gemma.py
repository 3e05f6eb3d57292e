"""Converts the config.json of a Hugging Face T5Gemma, field by field.

Every field that affects the computation is used or must have the one value supported here.
"""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.t5gemma_config import Stack, T5GemmaConfig

# Hugging Face's name -> (our name, default)
_SIZES = {
    "hidden_size": ("embed_dim", 2304),
    "intermediate_size": ("mlp_dim", 9216),
    "num_attention_heads": ("num_heads", 8),
    "num_key_value_heads": ("num_kv_heads", 4),
    "head_dim": ("head_dim", 256),
    "query_pre_attn_scalar": ("query_scalar", 256),
    "rms_norm_eps": ("norm_epsilon", 1e-6),
}
_ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu_erf",
    "relu": "relu",
    "silu": "silu",
}
_WINDOWS = {"sliding_attention": True, "full_attention": False}
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
        "encoder": {**common, **cap, **_stack_to_huggingface(config.encoder)},
        "decoder": {**common, **cap, **_stack_to_huggingface(config.decoder)},
        "torch_dtype": dtype,
    }


def _stack_to_huggingface(stack: Stack) -> dict[str, Any]:
    kinds = {used: theirs for theirs, used in _WINDOWS.items()}
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    sizes: dict[str, Any] = {theirs: getattr(stack, ours) for theirs, (ours, _) in _SIZES.items()}
    if stack.query_scalar.is_integer():
        sizes["query_pre_attn_scalar"] = int(stack.query_scalar)  # `transformers` accepts no 256.0
    return {
        "model_type": "t5_gemma_module",
        **sizes,
        "num_hidden_layers": stack.num_layers,
        "layer_types": [kinds[window > 0] for window in stack.windows],
        "sliding_window": max(stack.windows) or 4096,  # `transformers` needs one in any case
        "rope_parameters": {"rope_type": "default", "rope_theta": stack.rope_theta},
        "attn_logit_softcapping": stack.attention_softcap or None,
        "hidden_activation": activations[stack.activation_name],
        "attention_bias": False,
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
    decoder = parts["decoder"]
    _fixed(fields, {"is_encoder_decoder": True, "quantization_config": None}, source)
    vocab_size = fields.get("vocab_size", decoder.get("vocab_size", 256000))
    for part, found in parts.items():
        if found.get("vocab_size", vocab_size) != vocab_size:
            raise UserError(
                f"{source} has vocab_size={shown(found['vocab_size'])} in {part}, but "
                f"{shown(vocab_size)} elsewhere; expected one vocabulary."
            )
    ids = {
        ours: _first(fields.get(theirs, decoder.get(theirs)), default)
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
                **{part: _stack(found, f"{part} of {source}") for part, found in parts.items()},
                "tie_embeddings": tied,
                "final_softcap": _cap(decoder, "final_logit_softcapping", 30.0, source),
                **ids,
            }
        )
    except UserError as error:
        raise UserError(f"Can't use {source}: {error}") from error


def _first(value: Any, default: int) -> Any:
    if isinstance(value, list) and value:
        return value[0]
    return default if value is None else value


def _fixed(fields: Mapping[str, Any], values: Mapping[str, Any], source: str) -> None:
    for theirs, value in values.items():
        if fields.get(theirs) not in (None, value):
            raise UserError(
                f"{source} has {theirs}={shown(fields[theirs])}, which isn't supported; expected "
                f"{shown(value)}."
            )


def _cap(fields: Mapping[str, Any], theirs: str, default: float, source: str) -> float:
    value = fields.get(theirs, default)
    value = 0.0 if value is None else value
    if type(value) not in (int, float) or value < 0:
        raise UserError(f"{source} has {theirs}={shown(value)}; expected a number, or null.")
    return float(value)


def _stack(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the fields of a `Stack`."""
    _fixed(fields, {"attention_bias": False}, source)
    layers = fields.get("num_hidden_layers", 26)
    window = fields.get("sliding_window", 4096)
    alternating = ["full_attention" if i % 2 else "sliding_attention" for i in range(26)]
    if type(layers) is int and 0 < layers <= 1000:
        alternating = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    kinds = fields.get("layer_types") or alternating
    if not isinstance(kinds, list) or len(kinds) != layers or not {*map(str, kinds)} <= {*_WINDOWS}:
        raise UserError(
            f"{source} has layer_types={shown(kinds)} for {shown(layers)} layers; expected "
            f"{' or '.join(_WINDOWS)} for each."
        )
    if any(_WINDOWS[kind] for kind in kinds) and (type(window) is not int or window < 1):
        raise UserError(f"{source} has sliding_window={shown(window)}; expected an integer from 1.")
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    theta = fields.get("rope_theta") or 10000.0
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise UserError(
            f"{source} has rope_parameters={shown(rope)}, which isn't supported; expected the "
            "rope_type 'default'."
        )
    activation = fields.get("hidden_activation") or "gelu_pytorch_tanh"
    if activation not in _ACTIVATIONS:
        raise UserError(
            f"{source} has hidden_activation={shown(activation)}; expected one of "
            f"{', '.join(_ACTIVATIONS)}."
        )
    sizes = {}
    for theirs, (ours, default) in _SIZES.items():
        sizes[ours] = default if fields.get(theirs) is None else fields[theirs]
    return {
        "windows": [window if _WINDOWS[kind] else 0 for kind in kinds],
        "rope_theta": rope.get("rope_theta", theta),
        "attention_softcap": _cap(fields, "attn_logit_softcapping", 50.0, source),
        "activation_name": _ACTIVATIONS[activation],
        **sizes,
    }
