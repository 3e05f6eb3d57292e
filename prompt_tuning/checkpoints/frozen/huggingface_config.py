"""Converts the config.json of a Hugging Face T5, field by field.

Every field that affects a model's computation is either used or must have the one value supported
here. All others are ignored: those for training, tokenizers or `generate`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.checkpoints.frozen.huggingface_decoder import KIND_OF, decoder_only_config
from prompt_tuning.checkpoints.frozen.huggingface_t5gemma import (
    t5gemma_config,
    t5gemma_to_huggingface,
)
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.config import T5Config, problem_of
from prompt_tuning.models.parameters import ModelConfig
from prompt_tuning.models.t5gemma_config import T5GemmaConfig

_REQUIRED = object()
_USED: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", _REQUIRED),
    "d_model": ("embed_dim", _REQUIRED),
    "num_heads": ("num_heads", _REQUIRED),
    "d_kv": ("head_dim", _REQUIRED),
    "d_ff": ("mlp_dim", _REQUIRED),
    "num_layers": ("num_encoder_layers", _REQUIRED),
    "num_decoder_layers": ("num_decoder_layers", None),
    "relative_attention_num_buckets": ("relative_attention_num_buckets", 32),
    "relative_attention_max_distance": ("relative_attention_max_distance", 128),
    "layer_norm_epsilon": ("norm_epsilon", 1e-6),
    "pad_token_id": ("pad_id", 0),
    "eos_token_id": ("eos_id", 1),
    "decoder_start_token_id": ("decoder_start_id", None),
    "tie_word_embeddings": ("tie_embeddings", True),
    "scale_decoder_outputs": ("tie_embeddings", None),
    "is_gated_act": ("gated_mlp", None),
}
"""Hugging Face's name -> (our name, default value)."""

_FIXED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (True,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "quantization_config": (),
}
"""The values that a field may have, in addition to null."""

USED_FIELDS = {"model_type", "feed_forward_proj", "dense_act_fn", *_USED, *_FIXED}

# Defaults of feed_forward_proj.
_FEED_FORWARD = {"t5": "relu", "mt5": "gated-gelu", "umt5": "gated-gelu"}
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATIONS = {
    "relu": "relu",
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu_new",
    "silu": "silu",
}


def config_to_huggingface(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """Returns the config.json of a model, for `config_from_huggingface` and `transformers`."""
    if isinstance(config, T5GemmaConfig) and not config.merged:
        return t5gemma_to_huggingface(config, dtype)
    if not isinstance(config, T5Config):
        raise UserError(
            f"The model {config.name!r} is of the family {config.family}, which can't be written "
            "for Hugging Face; omit --format huggingface."
        )
    activation = _THEIR_ACTIVATIONS[config.activation_name]
    gated = f"gated-{activation}".replace("gelu_new", "gelu")
    used = {
        theirs: getattr(config, ours)
        for theirs, (ours, _) in _USED.items()
        if theirs not in ("scale_decoder_outputs", "decoder_start_token_id")
    }
    kind = "umt5" if config.bias_per_layer else "t5"
    return {
        "architectures": [f"{kind.upper()}ForConditionalGeneration"],
        "model_type": kind,
        "is_encoder_decoder": True,
        **used,
        "decoder_start_token_id": config.start_id,
        "feed_forward_proj": gated if config.gated_mlp else activation,
        "dense_act_fn": activation,
        "torch_dtype": dtype,
    }


def config_from_huggingface(
    fields: Mapping[str, Any], *, name: str, source: str = "config.json"
) -> ModelConfig:
    """Returns the config that a config.json describes.

    Args:
      fields: of the config.json.
      name: the model's name.
      source: the file, for messages.

    Raises:
      UserError: it is for another architecture, or a field is unsupported, missing or invalid.
    """
    kind = fields.get("model_type")
    if kind not in tuple(READERS):
        expected = ", ".join(map(repr, READERS))
        raise UserError(f"{source} has the model type {shown(kind)}; expected one of {expected}.")
    return READERS[kind](fields, name=name, source=source)


def _t5_config(fields: Mapping[str, Any], *, name: str, source: str) -> T5Config:
    kind = fields["model_type"]
    for theirs, values in _FIXED.items():
        if fields.get(theirs) not in (None, *values):
            expected = " or ".join(map(shown, values)) or "none"
            raise UserError(
                f"{source} has {theirs}={shown(fields[theirs])}, which isn't supported; expected "
                f"{expected}."
            )
    gated, activation = _feed_forward(fields, kind, source)
    read = {theirs: _field(fields, theirs, source) for theirs in _USED}
    # transformers 5 always writes tie_word_embeddings=True, and in addition scale_decoder_outputs,
    # true for v1.0 only; older versions wrote only tie_word_embeddings for both. An mT5's output
    # is never scaled; transformers 5 scales a UMT5's in any case, older versions if it is tied.
    tied, scaled = read.pop("tie_word_embeddings"), read.pop("scale_decoder_outputs")
    scaled = kind != "mt5" and (tied if scaled is None else scaled)
    given = read.pop("is_gated_act")
    gated = gated if given is None else given
    config = {_USED[theirs][0]: value for theirs, value in read.items()}
    if config["num_decoder_layers"] is None:
        config["num_decoder_layers"] = config["num_encoder_layers"]
    usual = "gelu_tanh" if gated else "relu"
    try:
        return T5Config(
            name=name,
            gated_mlp=gated,
            activation="" if activation == usual else activation,
            tie_embeddings=scaled,
            bias_per_layer=kind == "umt5",
            **config,
        )
    except UserError as error:
        raise UserError(f"Can't use {source}: {error}") from error


READERS: dict[str, Callable[..., ModelConfig]] = {
    **dict.fromkeys(_FEED_FORWARD, _t5_config),
    **dict.fromkeys(("t5gemma", "t5gemma2"), t5gemma_config),
    **dict.fromkeys(KIND_OF, decoder_only_config),
}
"""The reader of each model type; its arguments are those of `config_from_huggingface`."""


def _field(fields: Mapping[str, Any], theirs: str, source: str) -> Any:
    ours, value = _USED[theirs]
    if fields.get(theirs) is not None:
        value = fields[theirs]
    if value is _REQUIRED:
        raise UserError(f"{source} lacks the field {theirs!r}, which every T5 config has.")
    if value is not None and (wanted := problem_of(ours, value)):
        raise UserError(f"{source} has {theirs}={shown(value)}; expected {wanted}.")
    return value


def _feed_forward(fields: Mapping[str, Any], kind: str, source: str) -> tuple[bool, str]:
    """Returns whether the feed-forward block is gated, and our name of its activation."""
    block = fields.get("feed_forward_proj") or _FEED_FORWARD[kind]
    gate, _, named = block.rpartition("-") if isinstance(block, str) else ("?", "", "")
    if gate not in ("", "gated") or named not in _ACTIVATIONS:
        raise UserError(
            f"{source} has feed_forward_proj={shown(block)}; expected {', '.join(_ACTIVATIONS)}, "
            "or 'gated-' before one of them."
        )
    # In published models, 'gated-gelu' is the tanh approximation, and 'gelu' the exact form.
    activation = "gelu_new" if block == "gated-gelu" else named
    # Written since transformers 4.20; takes precedence over feed_forward_proj.
    activation = fields.get("dense_act_fn") or activation
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise UserError(
            f"{source} has dense_act_fn={shown(activation)}; expected one of "
            f"{', '.join(map(repr, _ACTIVATIONS))}."
        )
    return gate == "gated", _ACTIVATIONS[activation]
