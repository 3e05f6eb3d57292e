"""Reads Hugging Face T5 and mT5 checkpoints: a folder with config.json and safetensors.

Their kernels are transposed, [out, in], and there is one array a layer; names are translated into
T5X's, and t5x.py stacks the layers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prompt_tuning.checkpoints.t5x import layer_shapes, stack_layers
from prompt_tuning.checkpoints.weights import check_parameters, read_safetensors
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params

CONFIG_FILE = "config.json"
_WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"

_TOP = {
    "token_embedder/embedding": "shared.weight",
    "decoder/logits_dense/kernel": "lm_head.weight",
    "encoder/encoder_norm/scale": "encoder.final_layer_norm.weight",
    "decoder/decoder_norm/scale": "decoder.final_layer_norm.weight",
}
_RELATIVE = "{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# Per stack: which sublayer of a block each of our modules is, and its name there.
_SUBLAYERS = {
    "encoder": {
        "pre_attention_layer_norm": "0.layer_norm",
        "attention": "0.SelfAttention",
        "pre_mlp_layer_norm": "1.layer_norm",
        "mlp": "1.DenseReluDense",
    },
    "decoder": {
        "pre_self_attention_layer_norm": "0.layer_norm",
        "self_attention": "0.SelfAttention",
        "pre_cross_attention_layer_norm": "1.layer_norm",
        "encoder_decoder_attention": "1.EncDecAttention",
        "pre_mlp_layer_norm": "2.layer_norm",
        "mlp": "2.DenseReluDense",
    },
}
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}
# Copies of the embedding table, and a bias of cross-attention that old versions saved unused.
_IGNORED = {
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
}


def load_huggingface(folder: str | Path, dtype: str | None = None) -> tuple[T5Config, Params]:
    """Returns the config and the weights of a model folder, in one file or in shards.

    Raises:
      UserError: not such a folder, not a T5, or its parameters aren't those of its config.json.
    """
    folder = Path(folder)
    config = config_from_huggingface(_read_json(folder / CONFIG_FILE), name=folder.name)
    if (folder / _INDEX_FILE).exists():
        files = sorted(set(_read_json(folder / _INDEX_FILE).get("weight_map", {}).values()))
    else:
        files = [_WEIGHTS_FILE]
    state = {}
    for file in files:
        state |= read_safetensors(folder / file)[0]
    return params_from_state_dict(state, config, dtype, source=repr(str(folder)))


def config_from_huggingface(fields: Mapping[str, Any], *, name: str) -> T5Config:
    """Returns the config that a config.json describes.

    Raises:
      UserError: it is of another architecture, or has another feed-forward block.
    """
    kind = fields.get("model_type")
    if kind not in ("t5", "mt5"):
        raise UserError(f"The model {name!r} is of type {kind!r}; expected 't5' or 'mt5'.")
    activation = fields.get("feed_forward_proj", "relu")
    if activation not in ("relu", "gated-gelu"):
        raise UserError(
            f"The model {name!r} has feed_forward_proj={activation!r}; expected 'relu' or "
            "'gated-gelu'."
        )
    # transformers 5 writes that embeddings are tied whatever they are, and beside it whether the
    # decoder's output is scaled, which is what v1.0 alone does; before, `tie` said it.
    tied = fields.get("scale_decoder_outputs", fields.get("tie_word_embeddings", True) is not False)
    try:
        return T5Config(
            name=name,
            vocab_size=fields["vocab_size"],
            embed_dim=fields["d_model"],
            num_heads=fields["num_heads"],
            head_dim=fields["d_kv"],
            mlp_dim=fields["d_ff"],
            num_encoder_layers=fields["num_layers"],
            num_decoder_layers=fields.get("num_decoder_layers") or fields["num_layers"],
            gated_mlp=activation == "gated-gelu",
            tie_embeddings=tied and kind == "t5",
            relative_attention_num_buckets=fields["relative_attention_num_buckets"],
            relative_attention_max_distance=fields.get("relative_attention_max_distance", 128),
            norm_epsilon=fields.get("layer_norm_epsilon", 1e-6),
            pad_id=fields.get("pad_token_id", 0),
            eos_id=fields.get("eos_token_id", 1),
        )
    except KeyError as error:
        raise UserError(f"The config.json of model {name!r} has no field {error}.") from error


def params_from_state_dict(
    state: Mapping[str, np.ndarray], config: T5Config, dtype: str | None = None, *, source: str
) -> tuple[T5Config, Params]:
    """Returns numpy arrays by Hugging Face's names as the parameter tree of `config`.

    Raises:
      UserError: parameters are missing, extra or misshapen (all listed by Hugging Face's names).
    """
    names = {_huggingface_name(name): name for name in layer_shapes(config)}
    ignored = set(_IGNORED)
    if config.tie_embeddings and "lm_head.weight" in state:
        table = state.get("shared.weight")
        if table is not None and not np.array_equal(state["lm_head.weight"], table):
            raise UserError(
                f"{source} has an lm_head.weight of its own, yet its config.json says that "
                "embeddings are tied; set tie_word_embeddings to false there."
            )
        ignored.add("lm_head.weight")
    state = {name: value for name, value in state.items() if name not in ignored}
    shapes = layer_shapes(config)
    expected = {
        theirs: shapes[ours] if _same_way_round(ours) else shapes[ours][::-1]
        for theirs, ours in names.items()
    }
    check_parameters(state, expected, source=source)
    arrays = {
        ours: state[theirs] if _same_way_round(ours) else state[theirs].T
        for theirs, ours in names.items()
    }
    return stack_layers(arrays, config, dtype)


def _same_way_round(name: str) -> bool:
    return not name.endswith(("/kernel", "/rel_embedding"))


def _huggingface_name(name: str) -> str:
    """Returns Hugging Face's name of a parameter named in T5X's way."""
    if name in _TOP:
        return _TOP[name]
    stack, layer, *rest = name.split("/")
    if layer == "relpos_bias":
        return _RELATIVE.format(stack=stack)
    module, *projection = rest[:-1]
    parts = [_PROJECTIONS.get(part, part) for part in projection]
    number = layer.removeprefix("layers_")
    return ".".join([stack, "block", number, "layer", _SUBLAYERS[stack][module], *parts, "weight"])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"Can't read {str(path)!r}: {error}.") from error
