"""Frozen weights in our own safetensors format.

A file's keys are the "/"-joined paths of the parameter tree, with layers stacked as in the model.
Its metadata contains the config as JSON, and any strings that the writer adds. huggingface.py
and t5x.py read other formats; load.py detects the format.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors, write_safetensors
from prompt_tuning.checkpoints.arrays.stored_arrays import (
    ShardingOf,
    StoredParameter,
    as_dtype,
    check_parameters,
    dtype_of,
    read_parameters,
)
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.json_text import parse_json
from prompt_tuning.models.config import config_from_json
from prompt_tuning.models.parameters import CODES, ModelConfig, parameter_shapes
from prompt_tuning.models.t5 import Params

CONFIG_KEY = "t5_config"
WEIGHTS_FILE = "weights.safetensors"
"""The file's name in a folder written by `merge` or `pretrain`."""


def save_weights(
    path: str | FilePath,
    frozen: Params,
    config: ModelConfig,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a model to a safetensors file, in the dtypes of `frozen`.

    Raises:
      UserError: `frozen` doesn't have the parameters of `config`, or is quantized; or the file
        can't be written.
    """
    flat = dict(sorted(flatten(frozen).items()))
    check_not_quantized(flat, config)
    check_parameters(flat, parameter_shapes(config), source="the weights to be saved")
    write_safetensors(
        path,
        ((name, np.asarray(value)) for name, value in flat.items()),
        {name: value.shape for name, value in flat.items()},
        {name: np.dtype(value.dtype) for name, value in flat.items()},
        {**(metadata or {}), CONFIG_KEY: json.dumps(config.to_json())},
    )


def check_not_quantized(names: Iterable[str], config: ModelConfig) -> None:
    """Raises UserError if a model's weights are quantized, because no file format supports them."""
    if any(name.endswith(CODES) for name in names):
        raise UserError(
            f"The weights of {config.name!r} are quantized, which no file format here supports: "
            "save the model that they were loaded from."
        )


def save_parameters(
    path: str | FilePath,
    parameters: Mapping[str, StoredParameter],
    config: ModelConfig,
    dtype: str | None,
    metadata: Mapping[str, str],
) -> str:
    """Converts a stored model to our format, with one parameter in memory at a time.

    Returns:
      The dtype of the written parameters: `dtype`, or the stored one if None.

    Raises:
      UserError: a file is damaged, or the new one can't be written.
    """
    dtype = dtype_of(parameters, dtype)
    write_safetensors(
        path,
        ((name, parameter.read(as_dtype(dtype))) for name, parameter in parameters.items()),
        {name: parameter.shape for name, parameter in parameters.items()},
        dict.fromkeys(parameters, as_dtype(dtype)),
        {**metadata, CONFIG_KEY: json.dumps(config.to_json())},
    )
    return dtype


def load_weights(
    path: str | FilePath, dtype: str | None = None, sharding_of: ShardingOf | None = None
) -> tuple[ModelConfig, Params, dict[str, str]]:
    """Returns the config, the weights and the metadata of a file written by `save_weights`.

    Args:
      path: the file.
      dtype: of the returned weights; if None, the stored one.
      sharding_of: as in `read_parameters`.

    Raises:
      UserError: the file isn't one of ours, or its parameters aren't those of its config.
    """
    config, parameters, metadata = stored_weights(path)
    return config, unflatten(read_parameters(parameters, dtype, sharding_of)), metadata


def stored_weights(path: Any) -> tuple[ModelConfig, dict[str, StoredParameter], dict[str, str]]:
    """Returns the config, the parameters (without reading values) and the metadata of our file.

    Raises:
      UserError: as for `load_weights`.
    """
    arrays, metadata = stored_safetensors(path)
    if CONFIG_KEY not in metadata:
        raise UserError(
            f"{str(path)!r} is a safetensors file without {CONFIG_KEY!r} in its metadata, so it "
            "wasn't saved by prompt_tuning; for a Hugging Face model, give the folder."
        )
    try:
        config = config_from_json(parse_json(metadata.pop(CONFIG_KEY)))
    except ValueError as error:
        raise UserError(f"The T5 config in {str(path)!r} isn't JSON: {error}.") from error
    except UserError as error:
        raise UserError(f"Can't use the T5 config in {str(path)!r}: {error}") from error
    shapes = parameter_shapes(config)
    check_parameters(arrays, shapes, source=repr(str(path)))
    parameters = {
        name: StoredParameter(shape=shape, parts=[(arrays[name], lambda whole: whole)])
        for name, shape in shapes.items()
    }
    return config, parameters, metadata


def flatten(tree: Params) -> dict[str, Any]:
    """Returns the leaves of nested dicts by "/"-joined path."""
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Returns nested dicts; the inverse of `flatten`."""
    tree: Params = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree
