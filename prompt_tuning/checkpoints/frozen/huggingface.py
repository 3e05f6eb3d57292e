"""Reads Hugging Face checkpoints: a folder with config.json and weights.

The weights are safetensors, in one file or in shards with an index, or PyTorch files. Kernels are
transposed, [out, in], and each layer has its own array. The config's table of parameters has the
names. huggingface_config.py reads config.json.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors
from prompt_tuning.checkpoints.arrays.stored_arrays import (
    StoredArray,
    StoredParameter,
    check_parameters,
    reading,
)
from prompt_tuning.checkpoints.arrays.torch_files import stored_torch
from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.layouts import from_layers, layer_shape
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import parse_json, shown, shown_names
from prompt_tuning.models.config import MODELS, T5Config
from prompt_tuning.models.parameters import ModelConfig

CONFIG_FILE = "config.json"
SAFETENSORS = "model.safetensors"
_TORCH = "pytorch_model.bin"

_TABLE = "shared.weight"
_HEAD = "lm_head.weight"
# Names of the embedding table; a file has one or several. The last is the output layer's, and is
# also used as the table if it is the only one.
_TABLES = (_TABLE, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", _HEAD)
# An unused bias of cross-attention, saved by old versions.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
# Modules of models with images.
_OF_IMAGES = ("vision_tower.", "multi_modal_projector.")
# The beginning of a T5Gemma 2's names whose next part may be missing, "text_model".
_TEXT = re.compile(r"^(model\.)?encoder\.(?=(embed_tokens|layers|norm)\.)")
# The first parts of all names; any other common first part is a wrapper's.
_MODULES = {"shared", "encoder", "decoder", "lm_head"}


def stored_huggingface(
    folder: str | epath.PathLike, *, name: str | None = None
) -> tuple[ModelConfig, dict[str, StoredParameter]]:
    """Returns the config and the parameters of a folder, without reading their values.

    Args:
      folder: with config.json and the weights.
      name: the model's name; if None, the last part of `folder`.

    Raises:
      UserError: the folder isn't a Hugging Face T5, or the parameters don't match config.json.
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
    """Returns the weight files, preferring a single file to shards, like `transformers`."""
    for name in (SAFETENSORS, _TORCH):
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return [folder / file for file in _shards(index)]
    found = shown_names(sorted(path.name for path in folder.iterdir()))
    raise UserError(
        f"{str(folder)!r} has a {CONFIG_FILE} but no weights that can be read; expected "
        f"{SAFETENSORS} or {_TORCH}, or shards with an index. It contains {found}."
    )


def _shards(index: epath.Path) -> list[str]:
    """Returns the files listed in an index, all in the index's folder."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(
            f"The index {str(index)!r} has the weight_map {shown(weight_map)}; expected an object "
            "that maps each parameter's name to its file."
        )
    for name, file in weight_map.items():
        plain = isinstance(file, str) and file.isprintable() and "/" not in file
        if not plain or file in ("", ".", ".."):
            raise UserError(
                f"The index {str(index)!r} says that {shown(name)} is in {shown(file)}; expected "
                "the name of a file in the same folder."
            )
    return sorted(set(weight_map.values()))


def parameters_from_state(
    state: Mapping[str, StoredArray], config: ModelConfig, *, source: str
) -> dict[str, StoredParameter]:
    """Returns the model's parameters, backed by arrays with Hugging Face's names.

    Raises:
      UserError: arrays are missing, unexpected or misshapen (all listed by Hugging Face's names).
    """
    state = _without_prefix(state)
    tables = {}
    if isinstance(config, T5Config):
        tables = _renamed(state, config)
    else:
        state = _of_rotary(state, config, source)
    check_parameters(state, huggingface_shapes(config), source=source)
    if isinstance(config, T5Config):
        _check_copies(tables, config, source)
    return {
        each.name: from_layers(
            [state[name] for name in each.huggingface_names()], each, transposed=each.transposed
        )
        for each in config.parameters()
    }


def _renamed(state: dict[str, StoredArray], config: T5Config) -> dict[str, StoredArray]:
    """Renames the embedding table of a T5's state; returns it under the names that it had."""
    state.pop(_UNUSED, None)
    tables = {name: state.pop(name) for name in _TABLES if name in state}
    if tables:
        first = next(iter(tables.values()))
        state[_TABLE] = first
        if not config.tie_embeddings:  # `transformers` 5 also falls back to the table
            state[_HEAD] = tables.get(_HEAD, first)
    return tables


def _of_rotary(
    state: Mapping[str, StoredArray], config: ModelConfig, source: str
) -> dict[str, StoredArray]:
    """Returns a state under the names of its table, without a copy of a tied table.

    Of a model with images, only the text's part.

    Raises:
      UserError: the output layer differs from the table that it is tied to.
    """
    head, table = "lm_head.weight", "model.embed_tokens.weight"
    if config.family == "t5gemma":
        head, table = "lm_head.out_proj.weight", "model.decoder.embed_tokens.weight"
    elif config.family == "t5gemma2":
        head, table = "lm_head.out_proj.weight", "model.encoder.text_model.embed_tokens.weight"
        state = {
            _TEXT.sub("encoder.text_model.", name): array
            for name, array in state.items()
            if not name.endswith("decoder.embed_tokens.weight")  # the same table
        }
    named = {}
    for name, array in state.items():
        inner = re.sub(r"^(model\.|language_model\.)+", "", name)
        if not inner.removeprefix("encoder.").startswith(_OF_IMAGES) and "eoi_emb" not in inner:
            named[inner if inner.startswith("lm_head.") else f"model.{inner}"] = array
    if head in huggingface_shapes(config):
        if head not in named and table in named:
            named[head] = named[table]
    elif head in named and table in named and not _same_values(named.pop(head), named[table]):
        raise UserError(
            f"{source} has different values for {head} and {table}, but tie_word_embeddings is "
            "true in its config.json, so they are the same table."
        )
    return named


def _without_prefix(state: Mapping[str, StoredArray]) -> dict[str, StoredArray]:
    """Removes a wrapper's prefix from all names, such as "module." or "_orig_mod."."""
    first = {name.partition(".")[0] for name in state}
    if len(first) != 1 or first <= _MODULES or not all("." in name for name in state):
        return dict(state)
    return _without_prefix({name.partition(".")[2]: array for name, array in state.items()})


def _check_copies(tables: Mapping[str, StoredArray], config: T5Config, source: str) -> None:
    """Raises UserError if the copies of the embedding table differ."""
    first, *copies = tables
    for name in copies:
        if name == _HEAD and not config.tie_embeddings:
            continue
        if not _same_values(tables[name], tables[first]):
            reason = (
                "if the decoder's output is scaled (tie_word_embeddings or scale_decoder_outputs "
                "in its config.json) both are the same table"
                if name == _HEAD
                else "a T5 has one table for both"
            )
            raise UserError(f"{source} has different values for {name} and {first}; {reason}.")


def _same_values(one: StoredArray, other: StoredArray) -> bool:
    return (one.shape, one.dtype) == (other.shape, other.dtype) and all(
        np.array_equal(rows, others)
        for (_, rows), (_, others) in zip(one.blocks(), other.blocks(), strict=True)
    )


def huggingface_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the arrays in a Hugging Face folder."""
    return {
        name: layer_shape(each)[::-1] if each.transposed else layer_shape(each)
        for each in config.parameters()
        for name in each.huggingface_names()
    }


@functools.cache
def huggingface_modules(family: str) -> dict[str, str]:
    """Returns Hugging Face's paths of a family's modules in layers, by name here: "STACK/MODULE".

    A path has "{layer}" for a layer's index. Paths don't depend on sizes.
    """
    return {
        each.module: each.huggingface.removesuffix(".weight")
        for config in MODELS.values()
        if config.family == family
        for each in config.parameters()
        if each.layers
    }


def _read_json(path: epath.Path) -> dict[str, Any]:
    try:
        with reading(path):
            content = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"Can't read {str(path)!r}: it isn't JSON ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(
            f"Can't read {str(path)!r}: it contains {shown(content)}, expected a JSON object."
        )
    return content
