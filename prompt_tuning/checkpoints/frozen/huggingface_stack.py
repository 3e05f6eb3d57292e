"""Converts the fields of a Hugging Face config.json that describe a stack of rotary layers.

Every field that affects the computation is used or must have the one value supported here.
Defaults are those of `transformers`, which published files rely on.
"""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.stack import Stack

# Hugging Face's name -> our name
_SIZES = {
    "hidden_size": "embed_dim",
    "intermediate_size": "mlp_dim",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "query_pre_attn_scalar": "query_scalar",
    "rms_norm_eps": "norm_epsilon",
}
_ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu_erf",
    "relu": "relu",
    "silu": "silu",
}
_WINDOWS = {"sliding_attention": True, "full_attention": False}
_GEMMA: dict[str, Any] = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "activation": "gelu_pytorch_tanh",
    "rope_theta": 1e4,
}
_LLAMA: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "activation": "silu",
    "rope_theta": 1e4,
}
_QWEN = {**_LLAMA, "intermediate_size": 22016, "num_key_value_heads": 32, "sliding_window": 4096}
_DEFAULTS = {
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 50.0},
    "gemma3": {**_GEMMA, "rope_theta": 1e6, "rope_local_base_freq": 1e4},
    "llama": _LLAMA,
    "mistral": {
        **_LLAMA,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
}
_PLAIN = {"unit_offset": False, "post_norms": False}
_SPECS: dict[str, dict[str, Any]] = {
    "gemma2": {},
    "gemma3": {"head_norms": True},
    "llama": _PLAIN,
    "mistral": _PLAIN,
    "qwen2": {**_PLAIN, "projection_bias": True},
    "qwen3": {**_PLAIN, "head_norms": True},
}


def stack_fields(fields: Mapping[str, Any], kind: str, source: str) -> dict[str, Any]:
    """Returns the fields of a `Stack`.

    Args:
      fields: of the config.json, or of the part of it that describes the stack.
      kind: one of `KINDS`; T5Gemma's stacks are Gemma 2's.
      source: the file, for messages.

    Raises:
      UserError: a field is unsupported or invalid.
    """
    unused = {"attention_bias": False, "mlp_bias": False, "use_bidirectional_attention": False}
    fixed(fields, unused, source)
    found = {**_DEFAULTS[kind], **{name: x for name, x in fields.items() if x is not None}}
    for name in ("attn_logit_softcapping", "sliding_window"):  # null has a meaning there
        found[name] = fields[name] if name in fields else _DEFAULTS[kind].get(name)
    heads, width = found["num_attention_heads"], found["hidden_size"]
    found.setdefault("num_key_value_heads", heads)
    if type(heads) is int and heads > 0 and type(width) is int:
        found.setdefault("head_dim", width // heads)
    found.setdefault("query_pre_attn_scalar", found.get("head_dim"))
    activation = fields.get("hidden_activation") or fields.get("hidden_act") or found["activation"]
    if activation not in _ACTIVATIONS:
        name = "hidden_activation" if fields.get("hidden_activation") else "hidden_act"
        raise UserError(
            f"{source} has {name}={shown(activation)}; expected one of {', '.join(_ACTIVATIONS)}."
        )
    return {
        "windows": _windows(found, kind, source),
        **_rope(fields, found, kind, source),
        "attention_softcap": softcap(found, "attn_logit_softcapping", None, source),
        "activation_name": _ACTIVATIONS[activation],
        **{ours: found.get(theirs) for theirs, ours in _SIZES.items()},
        **_SPECS[kind],
    }


def stack_to_huggingface(stack: Stack) -> dict[str, Any]:
    """Returns the fields of a stack of a T5Gemma."""
    kinds = {used: theirs for theirs, used in _WINDOWS.items()}
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    sizes: dict[str, Any] = {theirs: getattr(stack, ours) for theirs, ours in _SIZES.items()}
    if stack.query_scalar.is_integer():
        sizes["query_pre_attn_scalar"] = int(stack.query_scalar)  # `transformers` accepts no 256.0
    return {
        "model_type": "t5_gemma_module",
        **sizes,
        "num_hidden_layers": stack.num_layers,
        "layer_types": [kinds[window > 0] for window in stack.windows],
        "sliding_window": max(stack.windows) or 4096,  # `transformers` needs one in any case
        "rope_parameters": _rope_to_huggingface(stack),
        "attn_logit_softcapping": stack.attention_softcap or None,
        "hidden_activation": activations[stack.activation_name],
        "attention_bias": False,
    }


def _rope_to_huggingface(stack: Stack) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": stack.rope_theta}
    if stack.rope_factor != 1.0:
        rope |= {"rope_type": "linear", "factor": stack.rope_factor}
    if stack.rope_length:
        rope |= {
            "rope_type": "llama3",
            "low_freq_factor": stack.rope_low,
            "high_freq_factor": stack.rope_high,
            "original_max_position_embeddings": stack.rope_length,
        }
    return rope


def first_id(value: Any, default: int) -> Any:
    """Returns an id, or the first of several; the default without one."""
    if isinstance(value, list) and value:
        return value[0]
    return default if value is None else value


def fixed(fields: Mapping[str, Any], values: Mapping[str, Any], source: str) -> None:
    """Raises UserError if a field has another value than the one that is supported."""
    for theirs, value in values.items():
        if fields.get(theirs) not in (None, value):
            raise UserError(
                f"{source} has {theirs}={shown(fields[theirs])}, which isn't supported; expected "
                f"{shown(value)}."
            )


def softcap(fields: Mapping[str, Any], theirs: str, default: float | None, source: str) -> float:
    """Returns a soft cap, 0 for none."""
    value = fields.get(theirs, default)
    value = 0.0 if value is None else value
    if type(value) not in (int, float) or value < 0:
        raise UserError(f"{source} has {theirs}={shown(value)}; expected a number, or null.")
    return float(value)


def _windows(found: Mapping[str, Any], kind: str, source: str) -> list[int]:
    """Returns each layer's window, 0 for none."""
    layers, window = found["num_hidden_layers"], found["sliding_window"]
    pattern = {"gemma2": 2, "gemma3": found.get("sliding_window_pattern", 6)}.get(kind, 0)
    given = found.get("layer_types") if pattern or kind.startswith("qwen") else None
    kinds = given
    if not given and type(layers) is int and 0 < layers <= 1000 and type(pattern) is int:
        first = found.get("max_window_layers", 28) if kind.startswith("qwen") else 0
        kinds = [
            "sliding_attention"
            if ((i + 1) % pattern if pattern else i >= first)
            else "full_attention"
            for i in range(layers)
        ]
    if not isinstance(kinds, list) or len(kinds) != layers or not {*map(str, kinds)} <= {*_WINDOWS}:
        raise UserError(
            f"{source} has layer_types={shown(kinds)} for {shown(layers)} layers; expected "
            f"{' or '.join(_WINDOWS)} for each."
        )
    everywhere = {
        "llama": True,
        "mistral": window is None,
        "qwen2": not found.get("use_sliding_window"),
        "qwen3": not found.get("use_sliding_window"),
    }
    if everywhere.get(kind):
        return [0] * len(kinds)
    if any(_WINDOWS[each] for each in kinds) and (type(window) is not int or window < 1):
        raise UserError(f"{source} has sliding_window={shown(window)}; expected an integer from 1.")
    return [window if _WINDOWS[each] else 0 for each in kinds]


def _rope(
    fields: Mapping[str, Any], found: Mapping[str, Any], kind: str, source: str
) -> dict[str, Any]:
    """Returns the fields of rotary positions."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    name = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    local: Any = {}
    if kind == "gemma3" and isinstance(rope, dict) and {*rope} & {*_WINDOWS}:
        rope, local = (rope.get(each) or {} for each in ("full_attention", "sliding_attention"))
    kinds = ("default", "linear", "llama3")
    for each, possible in ((rope, kinds), (local, kinds[:1])):
        if (
            not isinstance(each, dict)
            or (of := each.get("rope_type", each.get("type", "default"))) not in possible
            or each.get("partial_rotary_factor", 1.0) != 1.0
        ):
            expected = " or ".join(map(repr, possible))
            raise UserError(
                f"{source} has {name}={shown(each)}, which isn't supported; expected the "
                f"rope_type {expected}."
            )
    of = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", found["rope_theta"])
    result: dict[str, Any] = {"rope_theta": theta}
    if kind == "gemma3":
        result["local_rope_theta"] = local.get("rope_theta", found["rope_local_base_freq"])
    if of != "default":
        result["rope_factor"] = rope.get("factor")
    if of == "llama3":
        result["rope_low"] = rope.get("low_freq_factor")
        result["rope_high"] = rope.get("high_freq_factor")
        result["rope_length"] = rope.get("original_max_position_embeddings")
    return result
