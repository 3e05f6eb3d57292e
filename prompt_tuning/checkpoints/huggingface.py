"""Reads Hugging Face T5 and mT5 checkpoints: a folder with config.json and weights.

The weights are safetensors, in one file or in shards with an index, or PyTorch's own files. Their
kernels are transposed, [out, in], and there is one array a layer; names are translated into those
of layouts.py, which says how the model's parameters are filled from them. config.json is read by
huggingface_config.py.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.huggingface_config import config_from_huggingface
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
from prompt_tuning.json_text import parse_json, shown, shown_names
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params

CONFIG_FILE = "config.json"
SAFETENSORS = "model.safetensors"
_TORCH = "pytorch_model.bin"

_TABLE = "shared.weight"
_HEAD = "lm_head.weight"
# The embedding table's names; a file has one of them or several. The last is the output layer's,
# which is the table too where it is the only one.
_TABLES = (_TABLE, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", _HEAD)
# A bias of cross-attention that old versions saved unused.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
# The first parts of all names; what else all names begin with is a wrapper's.
_MODULES = {"shared", "encoder", "decoder", "lm_head"}

_TOP = {
    "token_embedder/embedding": _TABLE,
    "decoder/logits_dense/kernel": _HEAD,
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
    return config, unflatten(read_parameters(parameters, dtype, sharding_of))


def stored_huggingface(
    folder: str | epath.PathLike, *, name: str | None = None
) -> tuple[T5Config, dict[str, Parameter]]:
    """Returns the config and the parameters, which are still in the folder's files.

    Args:
      folder: as `load_huggingface` takes it.
      name: what the model is called; the last part of `folder` if None.

    Raises:
      UserError: as `load_huggingface`.
    """
    folder = epath.Path(folder)
    file = folder / CONFIG_FILE
    config = config_from_huggingface(
        _read_json(file), name=name or folder.name, source=repr(str(file))
    )
    arrays: dict[str, StoredArray] = {}
    for file in _weights_files(folder):
        if file.name.endswith(".safetensors"):
            arrays |= stored_safetensors(file)[0]
        else:
            arrays |= stored_torch(file)
    return config, parameters_from_state(arrays, config, source=repr(str(folder)))


def _weights_files(folder: epath.Path) -> list[epath.Path]:
    """The files of weights: a single one comes before shards, as in `transformers`."""
    for name in (SAFETENSORS, _TORCH):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return [folder / file for file in _shards(index)]
    found = shown_names(sorted(path.name for path in folder.iterdir()))
    raise UserError(
        f"{str(folder)!r} has a {CONFIG_FILE} but no weights that can be read; expected "
        f"{SAFETENSORS} or {_TORCH}, or shards with an index. It holds {found}."
    )


def _shards(index: epath.Path) -> list[str]:
    """The files that an index names, each in the index's own folder."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(
            f"The index {str(index)!r} has the weight_map {shown(weight_map)}; expected an object "
            "from the name of each parameter to the file that holds it."
        )
    for name, file in weight_map.items():
        plain = isinstance(file, str) and file.isprintable() and "/" not in file
        if not plain or file in ("", ".", ".."):
            raise UserError(
                f"The index {str(index)!r} says that {shown(name)} is in {shown(file)}; expected "
                "the name of a file in its own folder."
            )
    return sorted(set(weight_map.values()))


def parameters_from_state(
    state: Mapping[str, StoredArray], config: T5Config, *, source: str
) -> dict[str, Parameter]:
    """Returns how the model's parameters are filled from arrays by Hugging Face's names.

    Raises:
      UserError: arrays are missing, extra or misshapen (all listed by Hugging Face's names).
    """
    names = {huggingface_name(name): name for name in layer_shapes(config)}
    state = _without_prefix(state)
    state.pop(_UNUSED, None)
    tables = {name: state.pop(name) for name in _TABLES if name in state}
    if tables:
        first = next(iter(tables.values()))
        state[_TABLE] = first
        if not config.tie_embeddings:  # without one of its own, as `transformers` 5 reads it
            state[_HEAD] = tables.get(_HEAD, first)
    shapes = layer_shapes(config)
    expected = {
        theirs: shapes[ours][::-1] if transposed(ours) else shapes[ours]
        for theirs, ours in names.items()
    }
    check_parameters(state, expected, source=source)
    _check_copies(tables, config, source)
    arrays = {ours: state[theirs] for theirs, ours in names.items()}
    return parameters_from_layers(arrays, config, transposed=transposed)


def _without_prefix(state: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Drops what a wrapper has put before all names, such as "module." or "_orig_mod."."""
    first = {name.partition(".")[0] for name in state}
    if len(first) != 1 or first <= _MODULES or not all("." in name for name in state):
        return dict(state)
    return _without_prefix({name.partition(".")[2]: array for name, array in state.items()})


def _check_copies(tables: Mapping[str, StoredArray], config: T5Config, source: str) -> None:
    """Raises UserError where what should be copies of the embedding table differ from it."""
    first, *copies = tables
    for name in copies:
        if name == _HEAD and not config.tie_embeddings:
            continue
        if not _same_values(tables[name], tables[first]):
            told = (
                "where the decoder's output is scaled (tie_word_embeddings or "
                "scale_decoder_outputs in its config.json) both are one table"
                if name == _HEAD
                else "a T5 has one table for both"
            )
            raise UserError(f"{source} has {name} unlike {first}; {told}.")


def _same_values(one: StoredArray, other: StoredArray) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype) and all(
        np.array_equal(rows, others)
        for (_, rows), (_, others) in zip(one.blocks(), other.blocks(), strict=True)
    )


def transposed(name: str) -> bool:
    """Whether the array of a name in T5X's way has its axes the other way round here."""
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


def huggingface_module(name: str, layer: int) -> str:
    """Returns Hugging Face's path of a layer's projection that we call "STACK/MODULE"."""
    stack, rest = name.split("/", 1)
    return huggingface_name(f"{stack}/layers_{layer}/{rest}/kernel").removesuffix(".weight")


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        with reading(path):
            content = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"Can't read {str(path)!r}: it isn't json ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(
            f"Can't read {str(path)!r}: it holds {shown(content)}, expected a JSON object."
        )
    return content
