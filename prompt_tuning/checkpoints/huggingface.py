"""Reads Hugging Face T5 and mT5 checkpoints: a folder with config.json and weights.

The weights are safetensors, in one file or in shards with an index, or PyTorch's own files. Their
kernels are transposed, [out, in], and there is one array a layer; names are translated into those
of layouts.py, which says how the model's parameters are filled from them.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.layouts import layer_shapes, parameters_from_layers
from prompt_tuning.checkpoints.safetensors_files import stored_safetensors
from prompt_tuning.checkpoints.stored_arrays import (
    Parameter,
    ShardingOf,
    StoredArray,
    check_parameters,
    read_parameters,
    reading,
)
from prompt_tuning.checkpoints.torch_files import stored_torch
from prompt_tuning.checkpoints.weights import unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params

CONFIG_FILE = "config.json"
_SAFETENSORS = "model.safetensors"
_TORCH = "pytorch_model.bin"

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


def load_huggingface(
    folder: str | epath.PathLike, dtype: str | None = None, sharding_of: ShardingOf | None = None
) -> tuple[T5Config, Params]:
    """Returns the config and the weights of a model folder.

    Args:
      folder: with config.json and the weights.
      dtype: cast the weights to it; as they were saved if None.
      sharding_of: where each parameter goes, as for `read_parameters`.

    Raises:
      UserError: not such a folder, not a T5, or its parameters aren't those of its config.json.
    """
    config, parameters = stored_huggingface(folder)
    config, flat = read_parameters(parameters, config, dtype, sharding_of)
    return config, unflatten(flat)


def stored_huggingface(folder: str | epath.PathLike) -> tuple[T5Config, dict[str, Parameter]]:
    """Returns the config and the parameters, which are still in the folder's files.

    Raises:
      UserError: as `load_huggingface`.
    """
    folder = epath.Path(folder)
    config = config_from_huggingface(_read_json(folder / CONFIG_FILE), name=folder.name)
    arrays: dict[str, StoredArray] = {}
    for file in _weights_files(folder):
        if file.name.endswith(".safetensors"):
            arrays |= stored_safetensors(file)[0]
        else:
            arrays |= stored_torch(file)
    return config, parameters_from_state(arrays, config, source=repr(str(folder)))


def _weights_files(folder: epath.Path) -> list[epath.Path]:
    for name in (_SAFETENSORS, _TORCH):
        index = folder / f"{name}.index.json"
        if index.exists():
            files = sorted(set(_read_json(index).get("weight_map", {}).values()))
            outside = [file for file in files if "/" in file or "\\" in file or file == ".."]
            if outside:
                raise UserError(
                    f"The index {str(index)!r} names a file outside its folder, {outside[0]!r}; "
                    "it isn't read."
                )
            return [folder / file for file in files]
        if (folder / name).exists():
            return [folder / name]
    raise UserError(
        f"{str(folder)!r} has a {CONFIG_FILE} but no weights that can be read; expected "
        f"{_SAFETENSORS} or {_TORCH}, or shards with an index."
    )


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


def parameters_from_state(
    state: Mapping[str, StoredArray], config: T5Config, *, source: str
) -> dict[str, Parameter]:
    """Returns how the model's parameters are filled from arrays by Hugging Face's names.

    Raises:
      UserError: arrays are missing, extra or misshapen (all listed by Hugging Face's names).
    """
    names = {huggingface_name(name): name for name in layer_shapes(config)}
    ignored = set(_IGNORED)
    if config.tie_embeddings and "lm_head.weight" in state:
        table = state.get("shared.weight")
        if table is not None and not _same_values(state["lm_head.weight"], table):
            raise UserError(
                f"{source} has an lm_head.weight of its own, yet its config.json says that "
                "embeddings are tied; set tie_word_embeddings to false there."
            )
        ignored.add("lm_head.weight")
    state = {name: value for name, value in state.items() if name not in ignored}
    shapes = layer_shapes(config)
    expected = {
        theirs: shapes[ours][::-1] if _transposed(ours) else shapes[ours]
        for theirs, ours in names.items()
    }
    check_parameters(state, expected, source=source)
    arrays = {ours: state[theirs] for theirs, ours in names.items()}
    return parameters_from_layers(arrays, config, transposed=_transposed)


def _same_values(one: StoredArray, other: StoredArray) -> bool:
    return one.shape == other.shape and all(
        np.array_equal(rows, others)
        for (_, rows), (_, others) in zip(one.blocks(), other.blocks(), strict=True)
    )


def _transposed(name: str) -> bool:
    return name.endswith(("/kernel", "/rel_embedding"))


def huggingface_name(name: str) -> str:
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


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        with reading(path):
            content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"Can't read {str(path)!r}: it isn't json ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"Can't read {str(path)!r}: expected a json object.")
    return content
