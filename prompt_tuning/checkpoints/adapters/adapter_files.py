"""Adapter files of any method: `<stem>.safetensors` with the method's description.

The arrays are a method's variables by "/"-joined name. The string metadata is a prompt's
(`PromptMetadata`) plus the method's name and its attributes as JSON, from which the method is
rebuilt. A plain soft prompt is written as in `prompt_files.py`, and read from all its formats.
Variables needed only for training are folded first.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from prompt_tuning.buckets import check_reachable
from prompt_tuning.checkpoints.adapters import peft
from prompt_tuning.checkpoints.adapters.peft_methods import load_peft_method
from prompt_tuning.checkpoints.adapters.prompt_files import (
    BEST_PROMPT,
    PromptMetadata,
    check_metadata,
    load_prompt,
    save_prompt,
)
from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors, write_arrays
from prompt_tuning.checkpoints.arrays.stored_arrays import check_parameters
from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.checkpoints.hub import adapter_path
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, check_kind
from prompt_tuning.methods.base import Batch, Method, Trained
from prompt_tuning.methods.prompt import SoftPrompt, soft_prompt_array, soft_prompt_variables
from prompt_tuning.methods.registry import describe, method_name, rebuild
from prompt_tuning.models.config import ModelConfig
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.t5 import Params

BEST_ADAPTER = "adapter_best"
"""Stem of the file with a run's best variables, unless they are a prompt."""

_ATTRIBUTES = "attributes"
_FIX = "Give the adapter a folder that exists, is writable and has free space."
# Methods need a batch to initialize, but don't use its contents.
_ANY_BATCH = {"encoder_input_tokens": np.ones((1, 1), np.int32), "task": np.zeros(1, np.int32)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """A method, its folded variables, and metadata of their training."""

    method: Method
    trained: Trained
    metadata: PromptMetadata

    def inject(self, batch: Batch) -> Injection:
        """Returns the injection for a batch."""
        return self.method.apply(self.trained, batch)

    @property
    def injection(self) -> Injection:
        """The injection, which doesn't depend on the batch once a method is folded."""
        return self.inject(_ANY_BATCH)

    @property
    def is_prompt(self) -> bool:
        """Whether it is a plain soft prompt, before the encoder's input."""
        return is_plain_prompt(self.method)

    @property
    def prompt(self) -> Float32[np.ndarray, "prompt embed"]:
        """The soft prompt.

        Raises:
          UserError: the method isn't a plain soft prompt.
        """
        if not self.is_prompt:
            raise UserError(
                f"These parameters were trained by {self.metadata.method}, which has no prompt "
                "before the input; expected a soft prompt."
            )
        return np.asarray(soft_prompt_array(self.trained), np.float32)


def is_plain_prompt(method: Method) -> bool:
    """Whether a method is the paper's prompt tuning: a prompt before the encoder's input."""
    if not isinstance(method, SoftPrompt):
        return False
    plain = SoftPrompt(length=method.length, embed_dim=method.embed_dim)
    return describe(method) == describe(plain)  # pyright: ignore[reportArgumentType]


def save_adapter(
    folder: str | os.PathLike[str], method: Method, trained: Trained, metadata: PromptMetadata
) -> list[FilePath]:
    """Writes a run's best variables, folded, to its folder; returns the paths.

    Files are written atomically. `metadata.method` is set here.

    Raises:
      UserError: a file can't be written.
    """
    folder = as_path(folder)
    method, trained = method.fold(trained)
    if is_plain_prompt(method):
        return list(save_prompt(folder / BEST_PROMPT, soft_prompt_array(trained), metadata))
    return [write_adapter(folder / f"{BEST_ADAPTER}.safetensors", method, trained, metadata)]


def write_adapter(
    path: FilePath, method: Method, trained: Trained, metadata: PromptMetadata
) -> FilePath:
    """Writes a method's variables, unchanged, to a file; returns its path."""
    metadata = dataclasses.replace(metadata, method=method_name(method))
    strings = {**metadata.to_strings(), _ATTRIBUTES: describe(method)}
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flatten(trained).items()}
    write_arrays(path, arrays, strings, fix=_FIX)
    return path


def best_file(folder: str | os.PathLike[str]) -> FilePath | None:
    """Returns the file with a run's best variables, or None if there is none yet."""
    for stem in (BEST_PROMPT, BEST_ADAPTER):
        path = as_path(folder) / f"{stem}.safetensors"
        if path.is_file():
            return path
    return None


def load_adapter(
    path: str | os.PathLike[str],
    *,
    embed_dim: int | None = None,
    model: str | None = None,
    vocabulary_hash: str | None = None,
    config: ModelConfig | None = None,
) -> Adapter:
    """Reads an adapter of any method, and checks that it fits.

    Args:
      path: a file of `save_adapter`, a run folder, a prompt in any format of `load_prompt`, a
        PEFT adapter of any method in `peft_methods.py`, or the hub name of any of these.
      embed_dim: the model's embedding size, which a prompt must have.
      model: name of the model in use; checked if the file names one.
      vocabulary_hash: of the vocabulary in use; checked if the file has one.
      config: the model's; if None, the only PEFT adapters that can be read are prompts, and those
        that PEFT itself wrote must be for models without scaled embeddings, such as T5.

    Raises:
      UserError: it can't be read, is damaged, or was trained for another model or vocabulary.
    """
    check_reachable(path := as_path(path))
    path = adapter_path(path)
    check_kind(path)
    file = best_file(path) if path.is_dir() else path
    strings = {} if file is None else _header(file)
    if (adapter := _read_peft(path, config)) is None:
        if file is None or _ATTRIBUTES not in strings:
            prompt, metadata = load_prompt(
                path,
                (None, embed_dim),
                model=model,
                vocabulary_hash=vocabulary_hash,
                peft_scale=config.peft_scale if config else 1.0,
            )
            method: Any = SoftPrompt(length=prompt.shape[0], embed_dim=prompt.shape[1])
            trained = soft_prompt_variables(prompt)
            return Adapter(method=method, trained=trained, metadata=metadata)
        adapter = _read(file, strings)
    check_metadata(path, adapter.metadata, model=model, vocabulary_hash=vocabulary_hash)
    for name, leaf in flatten(adapter.trained).items():
        if not np.isfinite(np.asarray(leaf, np.float32)).all():
            raise UserError(
                f"{path}: {name} has values that are NaN or infinite. Training diverged; use an "
                "earlier file."
            )
    return dataclasses.replace(adapter, trained=jax.tree.map(jax.numpy.asarray, adapter.trained))


def _read_peft(path: FilePath, config: ModelConfig | None) -> Adapter | None:
    """Reads a PEFT adapter; returns None if it isn't one, or is a prompt."""
    folder = path if path.is_dir() else path.parent
    ours = not path.is_dir() and path.name not in (peft.WEIGHTS_FILE, peft.TORCH_FILE)
    if ours or not peft.is_adapter(folder):
        return None
    if config is not None:
        peft.check_task_type(path, config)
    if not (found := load_peft_method(path, config)):
        return None
    method, trained, strings = found
    metadata = PromptMetadata.from_strings({**strings, "method": method_name(method)})
    return Adapter(method=method, trained=trained, metadata=metadata)


def check_fits(config: ModelConfig, adapter: Adapter, path: str) -> None:
    """Traces the model with the adapter's injection; raises UserError if shapes don't match."""
    batch = {**_ANY_BATCH, "decoder_input_tokens": _ANY_BATCH["encoder_input_tokens"]}
    batch = {name: jax.numpy.asarray(values) for name, values in batch.items()}

    def logits(frozen: Params) -> Any:
        variables, injection = injected(frozen, adapter.inject(batch))
        return model_of(config).apply(variables, batch, injection)

    try:
        jax.eval_shape(logits, abstract_params(config))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The {adapter.metadata.method} parameters in {path} don't fit the model "
            f"'{config.name}': they were trained for another model."
        ) from error


def _header(file: FilePath) -> Mapping[str, str]:
    """Returns a safetensors file's metadata, or an empty dict for any other file."""
    try:
        return stored_safetensors(file)[1]
    except UserError:
        return {}


def _read(file: FilePath, strings: Mapping[str, str]) -> Adapter:
    try:
        metadata = PromptMetadata.from_strings(strings)
        method = rebuild(metadata.method, strings[_ATTRIBUTES])
    except ValueError as error:
        raise UserError(f"The metadata of {file} is invalid: {error}.") from error
    except UserError as error:
        raise UserError(f"{file} can't be read: {error}") from None
    arrays, _ = stored_safetensors(file)
    expected = jax.eval_shape(lambda: method.init(jax.random.key(0), _ANY_BATCH))
    shapes = {name: leaf.shape for name, leaf in flatten(expected).items()}
    check_parameters(arrays, shapes, source=str(file))
    leaves = [np.asarray(arrays[name]) for name in shapes]
    trained = jax.tree.unflatten(jax.tree.structure(expected), leaves)
    return Adapter(method=method, trained=trained, metadata=metadata)
