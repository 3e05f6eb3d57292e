"""Which of PEFT's methods are read and written, and by what; prompts are in peft.py itself."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prompt_tuning.checkpoints.peft import Adapter, peft_type_of, write_adapter
from prompt_tuning.checkpoints.peft_ia3 import load_peft_ia3, peft_ia3
from prompt_tuning.checkpoints.peft_lora import load_peft_lora, peft_lora
from prompt_tuning.checkpoints.peft_prefix import load_peft_prefix, peft_prefix
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.methods.base import Method, Trained
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.registry import method_name
from prompt_tuning.models.config import T5Config

PROMPT_TUNING = "PROMPT_TUNING"
READERS: dict[str, Callable[[Path, T5Config], tuple[Any, Trained, Adapter]]] = {
    "LORA": load_peft_lora,
    "IA3": load_peft_ia3,
    "PREFIX_TUNING": load_peft_prefix,
}
"""By PEFT's names."""

WRITERS: dict[type[Any], Callable[[Any, Trained, str | None], Adapter]] = {
    LoRA: peft_lora,
    IA3: peft_ia3,
    DeepPrompt: peft_prefix,
}


def load_peft_method(
    path: Path, config: T5Config | None
) -> tuple[Method, Trained, dict[str, str]] | None:
    """Returns what an adapter of PEFT holds, its variables and metadata; None: it is a prompt.

    Raises:
      UserError: it can't be read, is of a method that isn't known here, or of another model; or
        no model is given.
    """
    kind = peft_type_of(path)
    if kind == PROMPT_TUNING:
        return None
    if kind not in READERS:
        raise UserError(
            f"The adapter in {path} is of peft_type {shown(kind)}; only {PROMPT_TUNING!r}, "
            f"{', '.join(map(repr, READERS))} can be read here."
        )
    if config is None:
        raise UserError(
            f"The adapter in {path} is of peft_type {kind!r}, and to read it takes the model that "
            "it belongs to; give it to a command that loads one."
        )
    method, trained, adapter = READERS[kind](path, config)
    return method, trained, dict(adapter.metadata)


def save_peft_method(
    folder: Path,
    method: Method,
    trained: Trained,
    metadata: dict[str, str],
    *,
    base_model: str | None = None,
) -> list[Path]:
    """Writes a method's variables as an adapter of PEFT, and returns the files' paths.

    Args:
      folder: one that exists.
      method: it is folded first.
      trained: its variables.
      metadata: strings for the header of adapter_model.safetensors; PEFT doesn't read them.
      base_model: as `peft.save_peft_prompt` takes it.

    Raises:
      UserError: PEFT has no such method, or the files can't be written.
    """
    method, trained = method.fold(trained)
    writer = WRITERS.get(type(method))
    if writer is None:
        raise UserError(
            f"What {method_name(method)} has trained can't be written for PEFT; only prompts, "
            "lora, ia3 and prefixes of the decoder can."
        )
    adapter = writer(method, trained, base_model)
    return write_adapter(folder, dataclasses.replace(adapter, metadata=metadata))
