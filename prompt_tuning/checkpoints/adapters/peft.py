"""Adapters of Hugging Face PEFT: a folder with adapter_config.json and adapter_model.safetensors.

This module reads and writes the folder of any method, and PEFT's prompt tuning: one array,
`prompt_embeddings`, in front of the encoder's input. `peft_methods.py` handles the other methods.
PEFT's default trains twice the rows it uses: `num_virtual_tokens` rows for the encoder and as many
for the decoder, of which it uses only the first half, in the encoder (PEFT 0.21,
`PeftModelForSeq2SeqLM.forward`). Both shapes are read; the one without dead rows is written. An
adapter of P-tuning is a prompt too: PEFT saves what its network computes. Models that scale their
embeddings, such as T5Gemma, scale PEFT's prompts too, but not ours: `prompt_files.py` and
`prompt_export.py` account for it. PEFT isn't required.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors, write_arrays
from prompt_tuning.checkpoints.arrays.torch_files import stored_torch
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, atomic_write
from prompt_tuning.json_text import parse_json, shown, shown_names
from prompt_tuning.models.decoder_only_config import KINDS
from prompt_tuning.models.parameters import ModelConfig

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
TORCH_FILE = "adapter_model.bin"  # of older versions of PEFT
TORCH_MAGICS = (b"PK\x03\x04", b"\x80")
"""First bytes of PyTorch's files: a zip archive or, in old versions, a pickle."""
PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING")
"""PEFT's names of methods that train one prompt."""
PROMPT_KEY = "prompt_embeddings"
_TASK_TYPES = ("SEQ_2_SEQ_LM", "CAUSAL_LM")
"""PEFT's names of encoder-decoders and of decoder-only models."""
_FIX = "Give the adapter a folder that exists, is writable and has free space."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """The contents of an adapter's files.

    Attributes:
      path: the given path, for messages.
      config: the fields of adapter_config.json.
      arrays: the trained arrays by PEFT's names.
      metadata: the strings in the header of adapter_model.safetensors, which PEFT doesn't read. If
        they don't name the model, "base_model" is the one in the configuration.
    """

    path: FilePath
    config: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]


def is_adapter(folder: FilePath) -> bool:
    """Whether a folder has any of an adapter's files."""
    return any((folder / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE, TORCH_FILE))


def peft_type_of(path: FilePath) -> str | None:
    """Returns PEFT's name of an adapter's method, given its folder or a file in it.

    Raises:
      UserError: the configuration can't be read.
    """
    folder = path if path.is_dir() else path.parent
    found = _read_config(folder / CONFIG_FILE).get("peft_type")
    return found if isinstance(found, str) else None


def task_type_of(family: str | None) -> str:
    """Returns PEFT's task type of a family; None is T5's."""
    return _TASK_TYPES[family in KINDS]


def auto_class_of(family: str | None) -> str:
    """Returns the name of the class of `transformers` that loads a family's models."""
    kind = {"SEQ_2_SEQ_LM": "Seq2SeqLM", "CAUSAL_LM": "CausalLM"}[task_type_of(family)]
    return f"AutoModelFor{kind}"


def check_task_type(path: FilePath, config: ModelConfig) -> None:
    """Raises UserError if an adapter's task type isn't that of the model."""
    folder = path if path.is_dir() else path.parent
    found = _read_config(folder / CONFIG_FILE).get("task_type")
    if found != (expected := task_type_of(config.family)):
        raise UserError(
            f"The adapter in {folder} has task_type {shown(found)} ({CONFIG_FILE}); expected "
            f"{expected!r} for the model '{config.name}'."
        )


def read_adapter(path: FilePath, *, peft_types: Sequence[str]) -> PeftAdapter:
    """Reads an adapter.

    Args:
      path: the folder of PEFT's `save_pretrained`, or the weight file in it.
      peft_types: PEFT's names of the expected methods, such as "PROMPT_TUNING".

    Raises:
      UserError: a file is missing or damaged, weights in a pickle can't be read without running
        code, or the adapter has another method or task type.
    """
    file = _weights_file(path) if path.is_dir() else path
    with file.open("rb") as stream:
        is_torch = stream.read(8).startswith(TORCH_MAGICS)
    arrays, metadata = (stored_torch(file), {}) if is_torch else stored_safetensors(file)
    config = _read_config(file.parent / CONFIG_FILE)
    for field, expected in (("peft_type", peft_types), ("task_type", _TASK_TYPES)):
        if config.get(field) not in expected:
            raise UserError(
                f"The adapter in {file.parent} has {field} {shown(config.get(field))} "
                f"({CONFIG_FILE}); only {' or '.join(map(repr, expected))} is supported."
            )
    values = {name: np.asarray(array) for name, array in arrays.items()}
    base = config.get("base_model_name_or_path")
    if isinstance(base, str) and base and "model" not in metadata:
        metadata = {**metadata, "base_model": base}
    return PeftAdapter(path=path, config=config, arrays=values, metadata=metadata)


def write_adapter(
    folder: FilePath,
    peft_type: str,
    fields: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    *,
    base_model: str | None,
) -> list[FilePath]:
    """Writes the two files of a PEFT adapter; returns their paths.

    Args:
      folder: existing.
      peft_type: PEFT's name of the method.
      fields: of adapter_config.json, in addition to those of every adapter.
      arrays: by PEFT's names.
      metadata: strings for the header of adapter_model.safetensors; PEFT doesn't read them.
      base_model: the hub name or the folder of the frozen model, which PEFT's `AutoPeftModel`
        classes load; not needed if the user loads the model.

    Raises:
      UserError: a file can't be written.
    """
    config = {
        "peft_type": peft_type,
        "task_type": task_type_of(metadata.get("family")),
        **fields,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
    }
    weights, config_file = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    # PEFT rejects a safetensors file without PyTorch as the format in its header.
    write_arrays(weights, arrays, {**metadata, "format": "pt"}, fix=_FIX)
    with atomic_write(config_file, fix=_FIX) as file:
        file.write(json.dumps(config, indent=2).encode() + b"\n")
    return [config_file, weights]


def load_peft_prompt(path: FilePath) -> tuple[np.ndarray, Mapping[str, str]]:
    """Returns the live rows of a prompt's adapter, [prompt, embed], and its metadata.

    If there are 2n rows, only the first n are live; a warning is logged.

    Raises:
      UserError: as for `read_adapter`; or the array is missing or isn't the only one, or its number
        of rows is neither `num_virtual_tokens` nor twice that.
    """
    adapter = read_adapter(path, peft_types=PROMPT_TYPES)
    if list(adapter.arrays) != [PROMPT_KEY]:
        found = shown_names(sorted(adapter.arrays)) or "no array"
        raise UserError(
            f"The adapter {path} contains {found}; expected only {PROMPT_KEY}: a prompt file "
            "can't store other trained parameters."
        )
    array = adapter.arrays[PROMPT_KEY]
    length = adapter.config.get("num_virtual_tokens")
    rows = len(array)
    # Not isinstance, because a bool is an int too.
    if type(length) is not int or length < 1 or rows not in (length, 2 * length):
        raise UserError(
            f"The adapter {path} has {PROMPT_KEY} of shape {list(array.shape)}, but "
            f"num_virtual_tokens in {CONFIG_FILE} is {shown(length)}; expected as many rows, or "
            "twice as many."
        )
    if rows == 2 * length:
        _log.warning(
            "The adapter %s has %d rows, but PEFT uses only rows 0 to %d: these are loaded, and "
            "the unused rows %d to %d are ignored.",
            path,
            rows,
            length - 1,
            length,
            rows - 1,
        )
    return array[:length], adapter.metadata


def save_peft_prompt(
    folder: FilePath,
    prompt: Float[Array | np.ndarray, "prompt embed"],
    metadata: Mapping[str, str],
    *,
    base_model: str | None = None,
) -> list[FilePath]:
    """Writes a prompt as an equivalent PEFT adapter, in float32.

    Arguments, result and errors are those of `write_adapter`.
    """
    array = np.ascontiguousarray(prompt, np.float32)
    fields = {
        "num_virtual_tokens": array.shape[0],
        "token_dim": array.shape[1],
        # Not the decoder of an encoder-decoder; otherwise, PEFT would expect 2n rows.
        "num_transformer_submodules": 1,
        # Not used, but required for models whose config.json has a part for each stack.
        "num_layers": 1,
        "num_attention_heads": 1,
        "prompt_tuning_init": "RANDOM",
    }
    arrays = {PROMPT_KEY: array}
    return write_adapter(folder, PROMPT_TYPES[0], fields, arrays, metadata, base_model=base_model)


def _read_config(path: FilePath) -> Mapping[str, Any]:
    try:
        config = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} contains adapter weights but no {CONFIG_FILE}, which describes them; "
            "copy that file too."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"Can't read {path}: {error}. Copy the adapter again.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not an adapter configuration; expected a JSON object.")
    return config


def _weights_file(folder: FilePath) -> FilePath:
    for name in (WEIGHTS_FILE, TORCH_FILE):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has {CONFIG_FILE} but no {WEIGHTS_FILE}; copy that file too.")
