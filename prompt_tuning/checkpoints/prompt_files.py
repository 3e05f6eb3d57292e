"""A prompt on disk: `<stem>.npy` for anyone, `<stem>.safetensors` with what is known about it.

The `.npy` file is the format of the paper's released prompts (float32, [prompt, embed]) and
carries no metadata; the `.safetensors` file holds one array, `prompt`, and the fields of
`PromptMetadata` as its string metadata. Files are recognised by their contents, not their names:
the released code saves `.npy` files as `checkpoint_<step>`. Nothing is ever unpickled. Frozen
weights are in `weights.py`; training state is in `manager.py`.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float, Float32

from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write

_KEY = "prompt"
_NPY_MAGIC = b"\x93NUMPY"
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
    """

    model: str | None = None
    task: str | None = None
    step: int | None = None
    metric: str | None = None
    score: float | None = None
    seed: int | None = None
    vocabulary_hash: str | None = None
    method: str = "soft_prompt"

    def to_strings(self) -> dict[str, str]:
        """Returns the known fields as strings; a float keeps every digit."""
        fields = dataclasses.asdict(self)
        return {name: str(value) for name, value in fields.items() if value is not None}

    @classmethod
    def from_strings(cls, strings: dict[str, str]) -> "PromptMetadata":
        """Reads the fields back; unknown names are left for newer versions. Raises ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: text for name, text in strings.items() if name in known}
        read = {"step": int, "seed": int, "score": float}
        return cls(**{name: read.get(name, str)(text) for name, text in values.items()})


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
    array = np.ascontiguousarray(prompt, np.float32)
    npy = stem.with_name(stem.name + ".npy")
    with atomic_write(npy, fix=_FIX) as file:
        np.save(file, array, allow_pickle=False)
    tensors = stem.with_name(stem.name + ".safetensors")
    with atomic_write(tensors, fix=_FIX) as file:
        file.write(safetensors.numpy.save({_KEY: array}, metadata.to_strings()))
    return npy, tensors


def load_prompt(
    path: str | os.PathLike[str],
    expect: tuple[int | None, int | None] = (None, None),
    *,
    model: str | None = None,
    vocabulary_hash: str | None = None,
) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
    """Reads a prompt and checks that it fits.

    Args:
      path: a `.npy` or `.safetensors` prompt file, whatever its name.
      expect: (length, embed) that the prompt must have; None accepts any.
      model: name of the model it is to be used with; checked where the file names one.
      vocabulary_hash: the vocabulary in use; checked where the file names one.

    Returns:
      The prompt as float32 and its metadata, which for a `.npy` file knows nothing.

    Raises:
      UserError: there is no such file, it isn't a prompt, its values aren't finite, its shape isn't
        the expected one, or it was trained for another model or vocabulary.
    """
    path = Path(path)
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".npy", ".safetensors"))
        hint = f" It holds {', '.join(inside)}." if inside else ""
        raise UserError(f"{path} is a folder; give the path of a prompt file.{hint}")
    try:
        with open(path, "rb") as file:
            is_npy = file.read(len(_NPY_MAGIC)) == _NPY_MAGIC
    except FileNotFoundError:
        raise UserError(f"There is no prompt file {path}; check PROMPT_FILE.") from None
    except OSError as error:
        raise UserError(f"Can't read the prompt file {path}: {error.strerror}.") from error
    array, metadata = _read_npy(path) if is_npy else _read_safetensors(path)
    prompt = _check_array(path, array)
    _check_fits(path, prompt, metadata, expect, model, vocabulary_hash)
    return prompt, metadata


def _read_npy(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    try:
        return np.load(path, allow_pickle=False), PromptMetadata()
    except (ValueError, EOFError) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled Python objects, which are never loaded; expected a plain "
                "array. Save the prompt again with numpy.save(path, array, allow_pickle=False)."
            ) from None
        raise UserError(f"{path} is not a readable .npy file: {_one_line(error)}.") from error


def _read_safetensors(path: Path) -> tuple[np.ndarray, PromptMetadata]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = sorted(file.keys())
            if names != [_KEY]:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                raise UserError(
                    f"{path} is not a prompt file: it holds {len(names)} arrays ({shown}); "
                    f"expected a single one called '{_KEY}'."
                )
            strings = file.metadata() or {}
            array = file.get_tensor(_KEY)
    except (safetensors.SafetensorError, TypeError) as error:
        raise UserError(
            f"{path} is not a prompt file: neither .npy nor .safetensors ({_one_line(error)})."
        ) from error
    try:
        return array, PromptMetadata.from_strings(strings)
    except ValueError as error:
        raise UserError(f"The metadata of {path} is broken: {_one_line(error)}.") from error


def _check_array(path: Path, array: np.ndarray) -> Float32[np.ndarray, "prompt embed"]:
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(
            f"{path} is not a prompt: its array has shape {list(array.shape)}; "
            "expected [length, embed]."
        )
    if not np.issubdtype(array.dtype, np.floating):
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
    if model and metadata.model and model != metadata.model:
        raise UserError(
            f"The prompt in {path} was trained for the model '{metadata.model}', but the model in "
            f"use is '{model}'. Load that model, or train a prompt for this one."
        )
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
    trained_with = metadata.vocabulary_hash
    if vocabulary_hash and trained_with and vocabulary_hash != trained_with:
        raise UserError(
            f"The prompt in {path} was trained with another vocabulary (SHA-256 "
            f"{trained_with[:12]}...) than the one in use ({vocabulary_hash[:12]}...). "
            "Set VOCABULARY_PATH to the one it was trained with."
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
