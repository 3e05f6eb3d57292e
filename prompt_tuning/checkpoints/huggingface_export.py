"""Writes a model as a Hugging Face folder: config.json and model.safetensors.

The names of its parameters are those that huggingface.py reads.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from prompt_tuning.checkpoints.huggingface import (
    CONFIG_FILE,
    SAFETENSORS,
    huggingface_name,
    transposed,
)
from prompt_tuning.checkpoints.huggingface_config import config_to_huggingface
from prompt_tuning.checkpoints.layouts import layer_shapes, separate_layers
from prompt_tuning.checkpoints.safetensors_files import write_safetensors
from prompt_tuning.checkpoints.stored_arrays import as_dtype
from prompt_tuning.checkpoints.weights import stacked_shapes
from prompt_tuning.files import atomic_write
from prompt_tuning.models.config import T5Config

_FIX = "Give another folder."


def save_huggingface(
    folder: Path, read: Callable[[str], np.ndarray], config: T5Config, dtype: str
) -> list[Path]:
    """Writes a model into a folder that exists and returns the files' paths.

    Args:
      folder: where the vocabulary's files go too, which `Vocabulary.save` writes.
      read: gives a parameter by its "/"-joined path in the tree; one is held at a time.
      config: the model's.
      dtype: of the weights in the file.

    Raises:
      UserError: a file can't be written.
    """

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        for name in stacked_shapes(config):
            for one, array in separate_layers(name, read(name), config):
                yield huggingface_name(one), array.T if transposed(one) else array

    shapes = {
        huggingface_name(one): shape[::-1] if transposed(one) else shape
        for one, shape in layer_shapes(config).items()
    }
    config_file, weights_file = folder / CONFIG_FILE, folder / SAFETENSORS
    write_safetensors(
        weights_file, arrays(), shapes, dict.fromkeys(shapes, as_dtype(dtype)), {"format": "pt"}
    )
    with atomic_write(config_file, fix=_FIX) as file:
        file.write((json.dumps(config_to_huggingface(config, dtype), indent=2) + "\n").encode())
    return [config_file, weights_file]
