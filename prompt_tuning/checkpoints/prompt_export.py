"""Writes a prompt in the forms that others read; `prompt_files.load_prompt` reads each of them."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from prompt_tuning.checkpoints.peft import save_peft_prompt
from prompt_tuning.checkpoints.prompt_files import PromptMetadata, write_npy, write_safetensors
from prompt_tuning.checkpoints.t5x_prompts import save_t5x_prompt
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import writing

FORMATS = ("peft", "t5x", "npy", "safetensors")


def export_prompt(
    folder: str | os.PathLike[str],
    prompt: Float[Array | np.ndarray, "prompt embed"],
    metadata: PromptMetadata,
    *,
    form: str,
    base_model: str | None = None,
) -> list[Path]:
    """Writes a prompt as one of `FORMATS` and returns the files' paths.

    Args:
      folder: a new or an empty one, so that nothing of another adapter stays beside this one.
      prompt: kept as float32.
      metadata: kept whole in the header of safetensors files; the step names T5X's folders; NumPy
        files carry none.
      form: a name out of `FORMATS`.
      base_model: for PEFT, the hub name or the folder of the frozen model; see `save_peft_prompt`.

    Raises:
      UserError: there is no such form, the folder isn't empty, or it can't be written.
    """
    if form not in FORMATS:
        raise UserError(
            f"There is no format '{form}'; expected {', '.join(FORMATS)}."
            f"{did_you_mean(form, FORMATS)}"
        )
    if base_model is not None and form != "peft":
        raise UserError(f"Only PEFT's files name a base model; leave it out for format '{form}'.")
    folder = Path(folder)
    with writing(folder, fix="Give another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                f"{folder} isn't empty, and nothing is written over; give a new folder."
            )
    if form == "peft":
        return save_peft_prompt(folder, prompt, metadata.to_strings(), base_model=base_model)
    if form == "t5x":
        return save_t5x_prompt(folder, prompt, step=metadata.step or 0)
    if form == "npy":
        return [write_npy(folder / "prompt.npy", prompt)]
    return [write_safetensors(folder / "prompt.safetensors", prompt, metadata)]
