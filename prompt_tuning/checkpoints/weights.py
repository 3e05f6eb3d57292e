"""Frozen weights in our own safetensors files.

A file's keys are the paths of the parameter tree joined by "/", layers stacked as in the model;
its metadata holds the `T5Config` as json beside whatever the writer adds. Other people's formats
are read by huggingface.py and t5x.py; frozen.py recognises which one a path is.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params, abstract_params

CONFIG_KEY = "t5_config"
_FIX = "Give the weights a folder that exists, can be written to and has space."


def save_weights(
    path: str | Path, frozen: Params, config: T5Config, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a model to one safetensors file, in the dtypes that `frozen` has.

    Raises:
      UserError: `frozen` doesn't have the parameters of `config`, or the file can't be written.
    """
    # The format stores row-major arrays, whatever strides a device array comes back with.
    flat = {name: np.ascontiguousarray(value) for name, value in flatten(frozen).items()}
    check_parameters(flat, stacked_shapes(config), source="the weights to be saved")
    packed = save(flat, {**(metadata or {}), CONFIG_KEY: json.dumps(config.to_json())})
    with atomic_write(Path(path), fix=_FIX) as file:
        file.write(packed)


def load_weights(
    path: str | Path, dtype: str | None = None
) -> tuple[T5Config, Params, dict[str, str]]:
    """Returns the config, the weights and the metadata of a file that `save_weights` wrote.

    Args:
      path: the file.
      dtype: cast the weights to it; as they were saved if None. The config's `param_dtype` says
        which it came to be.

    Raises:
      UserError: the file isn't one of ours, or its parameters aren't those of its config.
    """
    flat, metadata = read_safetensors(path)
    if CONFIG_KEY not in metadata:
        raise UserError(
            f"{str(path)!r} is a safetensors file without {CONFIG_KEY!r} in its metadata, so not a "
            "model saved by prompt_tuning; of a Hugging Face model, give the folder."
        )
    try:
        config = T5Config.from_json(json.loads(metadata.pop(CONFIG_KEY)))
    except json.JSONDecodeError as error:
        raise UserError(f"The T5 config in {str(path)!r} isn't json: {error}.") from error
    check_parameters(flat, stacked_shapes(config), source=repr(str(path)))
    config, frozen = as_params(flat, config, dtype)
    return config, frozen, metadata


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays and the metadata of any safetensors file.

    Raises:
      UserError: there's no such file or it's damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"Can't read weights from {str(path)!r}: {error}.") from error


def as_params(
    flat: Mapping[str, np.ndarray], config: T5Config, dtype: str | None
) -> tuple[T5Config, Params]:
    """Returns checked arrays as the parameter tree, and the config with the dtype they now have.

    Args:
      flat: the arrays, named by "/"-joined paths.
      config: the model they are of.
      dtype: cast to it; if None, the embedding table's own.
    """
    dtype = dtype or str(flat["token_embedder/embedding"].dtype)
    config = dataclasses.replace(config, param_dtype=dtype)
    return config, unflatten({name: jnp.asarray(value, dtype) for name, value in flat.items()})


def stacked_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by its "/"-joined path."""
    return {name: leaf.shape for name, leaf in flatten(abstract_params(config)).items()}


def check_parameters(
    found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], *, source: str
) -> None:
    """Raises UserError, listing what differs, unless `found` has these names and shapes."""
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} doesn't belong" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != expected[name]
    ]
    if problems:
        raise UserError(f"The parameters in {source} don't fit: {'; '.join(problems)}.")


def flatten(tree: Params) -> dict[str, Any]:
    """Returns the leaves of nested dicts by their "/"-joined paths."""
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Returns the nested dicts that `flatten` made flat."""
    tree: Params = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree
