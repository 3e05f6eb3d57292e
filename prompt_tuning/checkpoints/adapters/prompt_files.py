"""Prompt files: `<stem>.npy` for other tools, `<stem>.safetensors` with metadata.

The `.npy` file is the format of the paper's released prompts (float32, [prompt, embed]), without
metadata. The `.safetensors` file contains one array, `prompt`, and the fields of `PromptMetadata`
as strings. `load_prompt` also reads run folders, PEFT's adapters (`peft.py`) and T5X checkpoints
(`t5x_prompts.py`); formats are detected by contents, not file names. Nothing is ever unpickled.
`prompt_export.py` writes all formats.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Array, Float, Float32

from prompt_tuning.checkpoints.adapters import peft, t5x_prompts
from prompt_tuning.checkpoints.arrays.msgpack_files import FIRST_BYTES
from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors, write_arrays
from prompt_tuning.checkpoints.frozen.locations import same_model
from prompt_tuning.checkpoints.hub import adapter_path
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, atomic_write, check_kind
from prompt_tuning.json_text import shown, shown_names
from prompt_tuning.models.parameters import ModelConfig

BEST_PROMPT = "prompt_best"
"""Stem of the files with a run's best prompt."""

# Files with a folder's prompt: a run's, or one saved or exported to a folder.
_NAMES = (f"{BEST_PROMPT}.safetensors", "prompt.safetensors", "prompt.npy")
_KEY = "prompt"
_NPY_MAGIC = b"\x93NUMPY"
_log = logging.getLogger(__name__)
_FIX = "Give the prompt a folder that exists, is writable and has free space."


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptMetadata:
    """Metadata of a prompt's training; fields missing in a file are None.

    Attributes:
      model: name of the frozen model; the prompt works with no other.
      task: name of the training task.
      step: training steps so far.
      metric: name of the development metric.
      score: the metric's value for this prompt.
      seed: the run's seed.
      vocabulary_hash: SHA-256 of the SentencePiece file, in hexadecimal.
      method: the method that trained it.
      base_model: the base model named in a PEFT adapter: a hub name or a folder.
      target_sentinel: whether a sentinel precedes the targets, and therefore the answers.
      family: the frozen model's family, if it isn't T5's.
      peft_scale, rope_theta: the model's, if it isn't a T5: PEFT's prompts may enter the model
        before embeddings are scaled, and its prefixes are elsewhere on the rotary circle.
    """

    model: str | None = None
    task: str | None = None
    step: int | None = None
    metric: str | None = None
    score: float | None = None
    seed: int | None = None
    vocabulary_hash: str | None = None
    method: str = "soft_prompt"
    base_model: str | None = None
    target_sentinel: bool | None = None
    family: str | None = None
    peft_scale: float | None = None
    rope_theta: float | None = None

    @classmethod
    def of_model(cls, config: ModelConfig, **fields: Any) -> "PromptMetadata":
        """Returns metadata of something trained for a model."""
        if config.family != "t5":
            fields["family"] = config.family
            fields["peft_scale"] = config.peft_scale
            fields["rope_theta"] = config.rope_theta
        return cls(model=config.name, **fields)

    def to_strings(self) -> dict[str, str]:
        """Returns the fields that aren't None as strings; floats keep full precision."""
        fields = dataclasses.asdict(self)
        return {name: str(value) for name, value in fields.items() if value is not None}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str]) -> "PromptMetadata":
        """Parses the fields, ignoring unknown names of newer versions; may raise ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        read = {
            "step": int,
            "seed": int,
            **dict.fromkeys(("score", "peft_scale", "rope_theta"), float),
            "target_sentinel": lambda text: text == "True",
        }
        return cls(**{n: read.get(n, str)(text) for n, text in strings.items() if n in known})


def save_prompt(
    stem: str | os.PathLike[str],
    prompt: Float[Array | np.ndarray, "prompt embed"],
    metadata: PromptMetadata,
) -> tuple[FilePath, FilePath]:
    """Writes `<stem>.npy` and `<stem>.safetensors` atomically; returns their paths.

    Args:
      stem: path without a suffix; for an existing folder, `prompt` in that folder.
      prompt: stored as float32.
      metadata: written to the `.safetensors` file.

    Raises:
      UserError: the files can't be written.
    """
    stem = as_path(stem)
    if stem.is_dir():
        stem = stem / "prompt"
    npy = write_npy(stem.with_name(stem.name + ".npy"), prompt)
    return npy, write_safetensors(stem.with_name(stem.name + ".safetensors"), prompt, metadata)


def write_npy(path: FilePath, prompt: Float[Array | np.ndarray, "prompt embed"]) -> FilePath:
    """Writes only the `.npy` file; returns its path, and raises as `save_prompt` does."""
    with atomic_write(path, fix=_FIX) as file:
        np.save(file, np.ascontiguousarray(prompt, np.float32), allow_pickle=False)
    return path


def write_safetensors(
    path: FilePath, prompt: Float[Array | np.ndarray, "prompt embed"], metadata: PromptMetadata
) -> FilePath:
    """Writes only the `.safetensors` file; returns and raises as `write_npy` does."""
    write_arrays(path, {_KEY: np.asarray(prompt, np.float32)}, metadata.to_strings(), fix=_FIX)
    return path


def load_prompt(
    path: str | os.PathLike[str],
    expect: tuple[int | None, int | None] = (None, None),
    *,
    model: str | None = None,
    vocabulary_hash: str | None = None,
    peft_scale: float = 1.0,
) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
    """Reads a prompt and checks that it fits.

    Args:
      path: a `.npy` or `.safetensors` file of any name, a run folder, a folder written by
        `save_prompt` or `export`, a folder of PEFT's `save_pretrained`, a T5X checkpoint, a step of
        its numpy_checkpoints, or the hub name of such a folder.
      expect: the expected (length, embed); None accepts any.
      model: name of the model in use; checked if the file names one.
      vocabulary_hash: of the vocabulary in use; checked if the file has one.
      peft_scale: of the model in use, by which PEFT's prompts are scaled.

    Returns:
      The prompt as float32 and its metadata, which is empty unless we wrote the file.

    Raises:
      UserError: the file doesn't exist or isn't a prompt, its values aren't finite, its shape is
        unexpected, or it was trained for another model or vocabulary.
    """
    path = adapter_path(as_path(path))
    check_kind(path)
    read = _read_folder if path.is_dir() else _read_file
    array, metadata = read(path, peft_scale)
    prompt = _check_array(path, array)
    check_metadata(path, metadata, model=model)
    length, embed_dim = expect
    if embed_dim not in (None, prompt.shape[1]):
        raise UserError(
            f"The prompt in {path} is {prompt.shape[1]} wide, but the model's embeddings are "
            f"{embed_dim} wide: it was trained for another model."
        )
    if length not in (None, prompt.shape[0]):
        raise UserError(
            f"The prompt in {path} has {prompt.shape[0]} positions; expected {length}. "
            f"Set PROMPT_LENGTH to {prompt.shape[0]}, or give another file."
        )
    check_metadata(path, metadata, vocabulary_hash=vocabulary_hash)
    return prompt, metadata


def _read_folder(path: FilePath, peft_scale: float) -> tuple[np.ndarray, PromptMetadata]:
    if peft.is_adapter(path):
        return _read_adapter(path, peft_scale)
    if t5x_prompts.is_checkpoint(path):
        return t5x_prompts.load_t5x_prompt(path), PromptMetadata()
    if len(exported := sorted(path.glob(f"checkpoint_*/{t5x_prompts.INDEX_FILE}"))) == 1:
        return t5x_prompts.load_t5x_prompt(exported[0].parent), PromptMetadata()
    for name in (t5x_prompts.NUMPY_FILE, *_NAMES):
        if (path / name).is_file():
            return _read_file(path / name, peft_scale)
    inside = sorted(entry.name for entry in path.iterdir())
    raise UserError(
        f"{path} is a folder that is neither an adapter nor a T5X checkpoint and contains none of "
        f"{', '.join(_NAMES)}; give the path of a prompt. It contains "
        f"{shown_names(inside) or 'nothing'}."
    )


def _read_file(path: FilePath, peft_scale: float) -> tuple[np.ndarray, PromptMetadata]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise UserError(f"There is no prompt file or run folder {path}.") from None
    except OSError as error:
        raise UserError(f"Can't read the prompt file {path}: {error.strerror or error}.") from error
    if start.startswith(_NPY_MAGIC):
        return _read_npy(path)
    # A safetensors file begins with its header's length in eight bytes, and has "{" at offset 8.
    if start[8:] != b"{":
        if start.startswith(peft.TORCH_MAGICS):
            return _read_adapter(path, peft_scale)
        if start and start[0] in FIRST_BYTES:
            return t5x_prompts.load_t5x_prompt(path), PromptMetadata()
    return _read_safetensors(path, peft_scale)


def _read_adapter(path: FilePath, peft_scale: float) -> tuple[np.ndarray, PromptMetadata]:
    array, strings = peft.load_peft_prompt(path)
    metadata = _metadata(path, strings)
    return array * np.float32(metadata.peft_scale or peft_scale), metadata


def _read_npy(path: FilePath) -> tuple[np.ndarray, PromptMetadata]:
    try:
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False), PromptMetadata()
    except Exception as error:  # of a dozen types: the header is parsed as a Python literal
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled Python objects, which are never loaded; expected a plain "
                "array. Save the prompt again with numpy.save(path, array, allow_pickle=False)."
            ) from None
        raise UserError(f"{path} is not a readable .npy file: {shown(str(error))}.") from error


def _read_safetensors(path: FilePath, peft_scale: float) -> tuple[np.ndarray, PromptMetadata]:
    try:
        arrays, strings = stored_safetensors(path)
    except UserError as error:
        raise UserError(
            f"{path} is not a prompt file, neither .npy nor .safetensors: {error}"
        ) from error
    names = sorted(arrays)
    if names == [peft.PROMPT_KEY]:
        return _read_adapter(path, peft_scale)
    if names != [_KEY]:
        raise UserError(
            f"{path} is not a prompt file: it contains {len(names)} arrays "
            f"({shown_names(names)}); expected only one, named '{_KEY}'."
        )
    return np.asarray(arrays[_KEY]), _metadata(path, strings)


def _metadata(path: FilePath, strings: Mapping[str, str]) -> PromptMetadata:
    try:
        return PromptMetadata.from_strings(strings)
    except ValueError as error:
        raise UserError(f"The metadata of {path} is invalid: {error}.") from error


def _check_array(path: FilePath, array: np.ndarray) -> Float32[np.ndarray, "prompt embed"]:
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(
            f"{path} is not a prompt: its array has shape {list(array.shape)}; "
            "expected [length, embed]."
        )
    if array.dtype != ml_dtypes.bfloat16 and not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"{path} is not a prompt: its array has dtype {array.dtype}; expected float32."
        )
    with np.errstate(over="ignore"):
        prompt = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(prompt))
    if len(bad):
        position, column = bad[0]
        raise UserError(
            f"The prompt in {path} has {len(bad)} values that are NaN or infinite, the first at "
            f"position {position}, column {column}. Training diverged; use an earlier prompt."
        )
    return prompt


def check_metadata(
    path: FilePath,
    metadata: PromptMetadata,
    *,
    model: str | None = None,
    vocabulary_hash: str | None = None,
) -> None:
    """Checks that a file's metadata, if any, matches this model and vocabulary.

    PEFT's adapters name their model by a hub name or a folder; a mismatch only logs a warning.

    Raises:
      UserError: it is for another model or vocabulary.
    """
    what = "prompt" if metadata.method == "soft_prompt" else metadata.method
    if model and metadata.model and model != metadata.model:
        raise UserError(
            f"The {what} in {path} was trained for the model '{metadata.model}', but the model in "
            f"use is '{model}'. Load that model, or train for this one."
        )
    base = metadata.base_model
    if model and base and not same_model(base, model):
        _log.warning(
            "The %s in %s was trained on %s, according to its base_model_name_or_path, and the "
            "model in use is '%s'; if they differ, its answers are meaningless.",
            what,
            path,
            shown(base),
            model,
        )
    trained_with = metadata.vocabulary_hash
    if vocabulary_hash and trained_with and vocabulary_hash != trained_with:
        raise UserError(
            f"The {what} in {path} was trained with another vocabulary (SHA-256 "
            f"{trained_with[:12]}...) than the one in use ({vocabulary_hash[:12]}...). "
            "Set VOCABULARY_PATH to the one it was trained with."
        )
