"""Exports prompts and adapters to formats of other libraries.

`prompt_files.load_prompt` reads all formats of prompts, `adapter_files.load_adapter` those of all
methods.
"""

import dataclasses
import os

import numpy as np
from jaxtyping import Array, Float

from prompt_tuning.checkpoints.adapters.adapter_files import BEST_ADAPTER, Adapter, write_adapter
from prompt_tuning.checkpoints.adapters.model_card import write_model_card
from prompt_tuning.checkpoints.adapters.peft import save_peft_prompt
from prompt_tuning.checkpoints.adapters.peft_methods import save_peft_method
from prompt_tuning.checkpoints.adapters.prompt_files import (
    PromptMetadata,
    write_npy,
    write_safetensors,
)
from prompt_tuning.checkpoints.adapters.t5x_prompts import save_t5x_prompt
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import FilePath, as_path, new_folder
from prompt_tuning.methods.registry import method_name
from prompt_tuning.models.decoder_only_config import KINDS

_FIX = "Give another folder."
_IN_PEFT = (None, "t5gemma", "t5gemma2", *KINDS)  # families; None is T5's
FORMATS = ("peft", "t5x", "npy", "safetensors")


def export_prompt(
    folder: str | os.PathLike[str],
    prompt: Float[Array | np.ndarray, "prompt embed"],
    metadata: PromptMetadata,
    *,
    form: str,
    base_model: str | None = None,
) -> list[FilePath]:
    """Writes a prompt in one of `FORMATS`; returns the files' paths.

    Args:
      folder: new or empty, so that files of different adapters don't mix.
      prompt: stored as float32.
      metadata: written to the header of safetensors files; its step is in the names of T5X's
        folders; NumPy files have none.
      form: one of `FORMATS`.
      base_model: for PEFT, the hub name or the folder of the frozen model; see `write_adapter` in
        `peft.py`.

    Raises:
      UserError: the format is unknown, the folder isn't empty, or it can't be written.
    """
    if metadata.family is not None and form == "t5x":
        raise UserError(
            f"This was trained for a model of the family {metadata.family}, which T5X doesn't "
            "have; expected peft, safetensors or npy."
        )
    _check_peft(metadata, form)
    folder = _new_folder(folder, form, base_model)
    if form == "peft":
        scaled = prompt / np.float32(metadata.peft_scale or 1)
        files = save_peft_prompt(folder, scaled, metadata.to_strings(), base_model=base_model)
        return [write_model_card(folder, metadata, base_model=base_model, fix=_FIX), *files]
    if form == "t5x":
        return save_t5x_prompt(folder, prompt, step=metadata.step or 0)
    if form == "npy":
        return [write_npy(folder / "prompt.npy", prompt)]
    return [write_safetensors(folder / "prompt.safetensors", prompt, metadata)]


def export_adapter(
    folder: str | os.PathLike[str],
    adapter: Adapter,
    *,
    form: str,
    base_model: str | None = None,
) -> list[FilePath]:
    """Writes an adapter of any method in one of `FORMATS`; returns the files' paths.

    Args:
      folder: as in `export_prompt`.
      adapter: a prompt supports every format; other methods support ours, and some PEFT's.
      form: one of `FORMATS`.
      base_model: as in `export_prompt`.

    Raises:
      UserError: as for `export_prompt`; or the method doesn't support the format.
    """
    if adapter.is_prompt:
        prompt, metadata = adapter.prompt, adapter.metadata
        return export_prompt(folder, prompt, metadata, form=form, base_model=base_model)
    if form in ("npy", "t5x"):
        raise UserError(
            f"Only prompts can be exported as {form}, but this was trained by "
            f"{adapter.metadata.method}; expected safetensors, or peft if PEFT has the method."
        )
    _check_peft(adapter.metadata, form)
    folder = _new_folder(folder, form, base_model)
    if form == "peft":
        strings = adapter.metadata.to_strings()
        files = save_peft_method(
            folder, adapter.method, adapter.trained, strings, base_model=base_model
        )
        metadata = dataclasses.replace(adapter.metadata, method=method_name(adapter.method))
        return [write_model_card(folder, metadata, base_model=base_model, fix=_FIX), *files]
    path = folder / f"{BEST_ADAPTER}.safetensors"
    return [write_adapter(path, adapter.method, adapter.trained, adapter.metadata)]


def _check_peft(metadata: PromptMetadata, form: str) -> None:
    if form == "peft" and metadata.family not in _IN_PEFT:
        raise UserError(
            f"This was trained for a model of the family {metadata.family}, whose adapters aren't "
            "written for PEFT yet; expected safetensors."
        )


def _new_folder(folder: str | os.PathLike[str], form: str, base_model: str | None) -> FilePath:
    """Creates the folder to write to; returns its path."""
    if form not in FORMATS:
        raise UserError(
            f"Unknown format '{form}'; expected {', '.join(FORMATS)}.{did_you_mean(form, FORMATS)}"
        )
    if base_model is not None and form != "peft":
        raise UserError(
            f"Only the format 'peft' records a base model; omit it for the format '{form}'."
        )
    return new_folder(as_path(folder))
