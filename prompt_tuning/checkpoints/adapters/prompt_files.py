"""A prompt on disk: `<stem>.npy` for anyone, `<stem>.safetensors` with what is known about it.

The `.npy` file is the format of the paper's released prompts (float32, [prompt, embed]) and
carries no metadata; the `.safetensors` file holds one array, `prompt`, and the fields of
`PromptMetadata` as its string metadata. `load_prompt` also takes a run folder and other people's
forms: PEFT's adapters (`peft.py`) and T5X checkpoints (`t5x_prompts.py`). Which one a path is, is
recognized by its contents, not its name. Nothing is ever unpickled. All forms are written by
`prompt_export.py`. Frozen weights are in `weights.py`; training state is in `state.py`.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Array, Float, Float32

from prompt_tuning.checkpoints.adapters import peft, t5x_prompts
from prompt_tuning.checkpoints.arrays.msgpack_files import FIRST_BYTES
from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors, write_arrays
from prompt_tuning.checkpoints.arrays.stored_arrays import read_small
from prompt_tuning.checkpoints.frozen.locations import same_model
from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write, check_kind
from prompt_tuning.json_text import shown, shown_names

BEST_PROMPT = "prompt_best"
"""Stem of the files that hold the best prompt of a run folder."""

# What a folder's prompt is called: a run's, or one that was saved or exported into a folder.
_NAMES = (f"{BEST_PROMPT}.safetensors", "prompt.safetensors", "prompt.npy")
_KEY = "prompt"
_NPY_MAGIC = b"\x93NUMPY"
_LONGEST_REASON = 200  # characters
_log = logging.getLogger(__name__)
_FIX = "Give the prompt a folder that exists, can be written to and has space."


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptMetadata:
    """What a prompt was trained for; a field is None where a file doesn't say.

    Attributes:
      model: name of the frozen model it was trained against; it is of no use to any other.
      task: name of the task it was trained on.
      step: training steps it has seen.
      metric: name of the development metric, and
      score: its value for this very prompt.
      seed: seed of the run.
      vocabulary_hash: SHA-256 of the SentencePiece file, in hexadecimal.
      method: the method that trained it.
      base_model: what an adapter of PEFT says that it was trained on, a hub name or a folder.
      target_sentinel: whether a sentinel came before the targets, and comes before answers.
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

    def to_strings(self) -> dict[str, str]:
        """Returns the known fields as strings; a float keeps every digit."""
        fields = dataclasses.asdict(self)
        return {name: str(value) for name, value in fields.items() if value is not None}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str]) -> "PromptMetadata":
        """Reads the fields back; unknown names are left for newer versions. Raises ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: text for name, text in strings.items() if name in known}
        read = {"step": int, "seed": int, "score": float, "target_sentinel": _read_bool}
        return cls(**{name: read.get(name, str)(text) for name, text in values.items()})


def _read_bool(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text == "True"


def save_prompt(
    stem: str | os.PathLike[str],
    prompt: Float[Array | np.ndarray, "prompt embed"],
    metadata: PromptMetadata,
) -> tuple[Path, Path]:
    """Writes `<stem>.npy` and `<stem>.safetensors` and returns their paths.

    Each file appears whole or not at all: a reader, or a machine that fails, never sees half.

    Args:
      stem: path without a suffix; a folder that exists gets files called `prompt`.
      prompt: kept as float32.
      metadata: written into the `.safetensors` file.

    Raises:
      UserError: the files can't be written.
    """
    stem = Path(stem)
    if stem.is_dir():
        stem = stem / "prompt"
    npy = write_npy(stem.with_name(stem.name + ".npy"), prompt)
    return npy, write_safetensors(stem.with_name(stem.name + ".safetensors"), prompt, metadata)


def write_npy(path: Path, prompt: Float[Array | np.ndarray, "prompt embed"]) -> Path:
    """Writes the `.npy` file alone and returns its path; raises UserError as `save_prompt`."""
    with atomic_write(path, fix=_FIX) as file:
        np.save(file, np.ascontiguousarray(prompt, np.float32), allow_pickle=False)
    return path


def write_safetensors(
    path: Path, prompt: Float[Array | np.ndarray, "prompt embed"], metadata: PromptMetadata
) -> Path:
    """Writes the `.safetensors` file alone; returns and raises as `write_npy`."""
    array = np.ascontiguousarray(prompt, np.float32)
    write_arrays(path, {_KEY: array}, metadata.to_strings(), fix=_FIX)
    return path


def load_prompt(
    path: str | os.PathLike[str],
    expect: tuple[int | None, int | None] = (None, None),
    *,
    model: str | None = None,
    vocabulary_hash: str | None = None,
) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
    """Reads a prompt and checks that it fits.

    Args:
      path: a prompt in any form: a `.npy` or `.safetensors` file of whatever name, a run folder or
        one that `save_prompt` or `export` wrote into, a folder of PEFT's `save_pretrained`, a T5X
        checkpoint, or a step of its numpy_checkpoints.
      expect: (length, embed) that the prompt must have; None accepts any.
      model: name of the model it is to be used with; checked where the file names one.
      vocabulary_hash: the vocabulary in use; checked where the file names one.

    Returns:
      The prompt as float32 and its metadata, which knows nothing unless we wrote the file.

    Raises:
      UserError: there is no such file, it isn't a prompt, its values aren't finite, its shape isn't
        the expected one, or it was trained for another model or vocabulary.
    """
    path = Path(path)
    check_kind(path)
    array, metadata = _read_folder(path) if path.is_dir() else _read_file(path)
    prompt = _check_array(path, array)
    _check_fits(path, prompt, metadata, expect, model, vocabulary_hash)
    return prompt, metadata


def _read_folder(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    if peft.is_adapter(path):
        return _read_adapter(path)
    if t5x_prompts.is_checkpoint(path):
        return t5x_prompts.load_t5x_prompt(path), PromptMetadata()
    if len(exported := sorted(path.glob(f"checkpoint_*/{t5x_prompts.INDEX_FILE}"))) == 1:
        return t5x_prompts.load_t5x_prompt(exported[0].parent), PromptMetadata()
    for name in (t5x_prompts.NUMPY_FILE, *_NAMES):
        if (path / name).is_file():
            return _read_file(path / name)
    inside = sorted(entry.name for entry in path.iterdir())
    raise UserError(
        f"{path} is a folder, and neither an adapter nor a T5X checkpoint, and has none of "
        f"{', '.join(_NAMES)}; give the path of a prompt. It holds "
        f"{shown_names(inside) or 'nothing'}."
    )


def _read_file(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise UserError(f"There is no prompt file or run folder {path}.") from None
    except OSError as error:
        raise UserError(f"Can't read the prompt file {path}: {error.strerror}.") from error
    if start.startswith(_NPY_MAGIC):
        return _read_npy(path)
    # A safetensors file begins with the length of its header, which may be any byte, and then has
    # "{" at offset 8.
    if start[8:] != b"{":
        if start.startswith(peft.TORCH_MAGICS):
            return _read_adapter(path)
        if start and start[0] in FIRST_BYTES:
            return t5x_prompts.load_t5x_prompt(path), PromptMetadata()
    return _read_safetensors(path)


def _read_adapter(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    array, strings = peft.load_peft_prompt(path)
    return array, _metadata(path, strings)


def _read_npy(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    try:
        return np.load(path, allow_pickle=False), PromptMetadata()
    except Exception as error:  # of a dozen kinds: the header is parsed as Python's literals
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled Python objects, which are never loaded; expected a plain "
                "array. Save the prompt again with numpy.save(path, array, allow_pickle=False)."
            ) from None
        raise UserError(f"{path} is not a readable .npy file: {_one_line(error)}.") from error


def _read_safetensors(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    try:
        arrays, strings = stored_safetensors(path)
    except UserError as error:
        raise UserError(
            f"{path} is not a prompt file, neither .npy nor .safetensors: {error}"
        ) from error
    names = sorted(arrays)
    if names == [peft.PROMPT_KEY]:
        return _read_adapter(path)
    if names != [_KEY]:
        raise UserError(
            f"{path} is not a prompt file: it holds {len(names)} arrays "
            f"({shown_names(names)}); expected a single one called '{_KEY}'."
        )
    return read_small(arrays[_KEY], _KEY, source=str(path)), _metadata(path, strings)


def _metadata(path: Path, strings: Mapping[str, str]) -> PromptMetadata:
    try:
        return PromptMetadata.from_strings(strings)
    except ValueError as error:
        raise UserError(f"The metadata of {path} is broken: {_one_line(error)}.") from error


def _check_array(path: Path, array: np.ndarray) -> Float32[np.ndarray, "prompt embed"]:
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(
            f"{path} is not a prompt: its array has shape {list(array.shape)}; "
            "expected [length, embed]."
        )
    if array.dtype != ml_dtypes.bfloat16 and not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{path} is not a prompt: its array holds {array.dtype}; expected float32.")
    with np.errstate(over="ignore"):
        prompt = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(prompt))
    if len(bad):
        position, column = bad[0]
        raise UserError(
            f"The prompt in {path} has {len(bad)} values that are NaN or infinite, the first at "
            f"position {position}, column {column}. Its training diverged; use an earlier one."
        )
    return prompt


def _check_fits(
    path: Path,
    prompt: Float32[np.ndarray, "prompt embed"],
    metadata: PromptMetadata,
    expect: tuple[int | None, int | None],
    model: str | None,
    vocabulary_hash: str | None,
) -> None:
    length, embed_dim = expect
    check_metadata(path, metadata, model=model)
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


def check_metadata(
    path: Path,
    metadata: PromptMetadata,
    *,
    model: str | None = None,
    vocabulary_hash: str | None = None,
) -> None:
    """Checks that a file is of this model and vocabulary, as far as it says.

    An adapter of PEFT names its model by where that was: another name is warned of in a line.

    Raises:
      UserError: it is of another model or vocabulary.
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
            "The %s in %s was trained on %s, by its base_model_name_or_path, and the model in use "
            "is '%s': if that is another model, its answers mean nothing.",
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON].rstrip(".")
