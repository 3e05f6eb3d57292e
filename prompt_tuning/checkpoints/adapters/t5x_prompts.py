"""Prompts in the formats of the paper's code: in a T5X checkpoint, and as a NumPy file.

At each saved step, a training run of the released code writes to its MODEL_DIR

    checkpoint_<step>/                              the entire model; the prompt is the variable
                                                    target/encoder/prompt/prompt/prompt
    numpy_checkpoints/checkpoint_<step>/
        encoder.prompt.prompt.prompt                only the prompt, an .npy file without a suffix

and reads them with `prompts.t5x_load` and `prompts.np_load`. This module writes both, with only the
prompt in the checkpoint. t5x.py reads entire checkpoints; prompt_files.py handles other formats.
"""

from typing import Any

import numpy as np
from flax import serialization
from jaxtyping import Array, Float

from prompt_tuning.checkpoints.frozen import t5x
from prompt_tuning.checkpoints.frozen.t5x import INDEX_FILE
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, atomic_write, writing
from prompt_tuning.json_text import shown_names

VARIABLE = "encoder/prompt/prompt/prompt"
NUMPY_FILE = VARIABLE.replace("/", ".")
_VERSION = 3  # of the checkpoint format, used by T5X since June 2021
_FIX = "Give the prompt a folder that exists, is writable and has free space."


def is_checkpoint(folder: FilePath) -> bool:
    """Whether a folder is a T5X checkpoint."""
    return t5x.item_folder(folder) is not None


def load_t5x_prompt(path: FilePath) -> np.ndarray:
    """Returns the prompt in a T5X checkpoint.

    Args:
      path: the `checkpoint_<step>` folder in any of T5X's layouts, or a single msgpack file.

    Raises:
      UserError: it isn't a T5X checkpoint, or it has no prompt.
    """
    variables = t5x.variables(path)
    if VARIABLE not in variables:
        prompts = [name for name in sorted(variables) if "prompt" in name]
        raise UserError(
            f"The T5X checkpoint {path} has no variable target/{VARIABLE}"
            + (f", only {shown_names(prompts)}." if prompts else ": its model has no prompt.")
        )
    return np.asarray(variables[VARIABLE])


def save_t5x_prompt(
    folder: FilePath, prompt: Float[Array | np.ndarray, "prompt embed"], *, step: int
) -> list[FilePath]:
    """Writes a prompt in both formats, as in a MODEL_DIR; returns the two files' paths.

    Args:
      folder: existing; takes the place of MODEL_DIR.
      prompt: stored as float32.
      step: the training step, in the names of the inner folders.

    Raises:
      UserError: a file can't be written.
    """
    array = np.ascontiguousarray(prompt, np.float32)
    checkpoint = folder / f"checkpoint_{step}" / INDEX_FILE
    alone = folder / "numpy_checkpoints" / f"checkpoint_{step}" / NUMPY_FILE
    for file in (checkpoint, alone):
        with writing(file.parent, fix=_FIX):
            file.parent.mkdir(parents=True, exist_ok=True)
    target: Any = array
    for name in reversed(VARIABLE.split("/")):
        target = {name: target}
    state = {"step": np.array(step, np.int32)}
    index = {"version": _VERSION, "optimizer": {"target": target, "state": state}}
    with atomic_write(checkpoint, fix=_FIX) as file:
        file.write(serialization.msgpack_serialize(index))
    with atomic_write(alone, fix=_FIX) as file:
        np.save(file, array, allow_pickle=False)
    return [checkpoint, alone]
