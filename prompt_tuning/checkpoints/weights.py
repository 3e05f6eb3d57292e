"""Frozen weights in our own safetensors files.

A file's keys are the paths of the parameter tree joined by "/", layers stacked as in the model;
its metadata holds the `T5Config` as json beside whatever the writer adds. Readers of other
people's formats (huggingface.py, t5x.py) end in `as_params` too.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prompt_tuning.errors import UserError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params, abstract_params

_CONFIG_KEY = "t5_config"


def save_weights(
    path: str | Path, frozen: Params, config: T5Config, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a model to one safetensors file, in the dtypes that `frozen` has.

    Raises:
      UserError: `frozen` doesn't have the parameters of `config`.
    """
    flat = {name: np.asarray(value) for name, value in _flatten(frozen).items()}
    _check_parameters(flat, config, "the weights to be saved")
    fields = {**(metadata or {}), _CONFIG_KEY: json.dumps(config.to_json())}
    save_file({name: np.ascontiguousarray(value) for name, value in flat.items()}, path, fields)


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
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"Can't read weights from {str(path)!r}: {error}.") from error
    if _CONFIG_KEY not in metadata:
        raise UserError(
            f"{str(path)!r} is a safetensors file without a {_CONFIG_KEY!r} in its metadata, so "
            "not a model saved by prompt_tuning. Give the folder of a Hugging Face model instead "
            "of the file in it."
        )
    config = T5Config.from_json(json.loads(metadata.pop(_CONFIG_KEY)))
    config, frozen = as_params(flat, config, dtype, source=repr(str(path)))
    return config, frozen, metadata


def as_params(
    flat: Mapping[str, np.ndarray], config: T5Config, dtype: str | None, *, source: str
) -> tuple[T5Config, Params]:
    """Returns arrays named by "/"-joined paths as the tree of `config`, and what config that is.

    Args:
      flat: the arrays.
      config: the model they should be of.
      dtype: cast to it; if None they keep the dtype they have.
      source: what to call them in an error.

    Raises:
      UserError: parameters are missing, extra or of another shape; all are listed.
    """
    _check_parameters(flat, config, source)
    if dtype is None:
        dtype = str(flat["token_embedder/embedding"].dtype)
    config = dataclasses.replace(config, param_dtype=dtype)
    arrays = {tuple(name.split("/")): jnp.asarray(value, dtype) for name, value in flat.items()}
    return config, traverse_util.unflatten_dict(arrays)


def _flatten(params: Params) -> dict[str, Any]:
    return traverse_util.flatten_dict(params, sep="/")


def _check_parameters(flat: Mapping[str, Any], config: T5Config, source: str) -> None:
    expected = {name: leaf.shape for name, leaf in _flatten(abstract_params(config)).items()}
    problems = [f"{name} is missing" for name in sorted(expected.keys() - flat.keys())]
    problems += [f"{name} isn't a parameter" for name in sorted(flat.keys() - expected.keys())]
    problems += [
        f"{name} has shape {flat[name].shape}, expected {expected[name]}"
        for name in sorted(expected.keys() & flat.keys())
        if flat[name].shape != expected[name]
    ]
    if problems:
        raise UserError(
            f"The parameters in {source} aren't those of model {config.name!r}: "
            f"{'; '.join(problems)}."
        )
