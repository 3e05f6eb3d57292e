"""Writes a model as a Hugging Face folder: config.json and model.safetensors.

huggingface.py reads it back.
"""

import json
from collections.abc import Callable, Iterator

import numpy as np

from prompt_tuning.checkpoints.arrays.safetensors_files import write_safetensors
from prompt_tuning.checkpoints.arrays.stored_arrays import as_dtype
from prompt_tuning.checkpoints.frozen.huggingface import (
    CONFIG_FILE,
    SAFETENSORS,
    huggingface_shapes,
)
from prompt_tuning.checkpoints.frozen.huggingface_config import config_to_huggingface
from prompt_tuning.checkpoints.frozen.layouts import layer_shape
from prompt_tuning.files import FilePath, atomic_write
from prompt_tuning.models.parameters import ModelConfig

_FIX = "Give another folder."


def save_huggingface(
    folder: FilePath, read: Callable[[str], np.ndarray], config: ModelConfig, dtype: str
) -> list[FilePath]:
    """Writes a model to an existing folder; returns the files' paths.

    Args:
      folder: existing; `Vocabulary.save` writes the vocabulary to the same one.
      read: "/"-joined path of a parameter -> its value; only one is in memory at a time.
      config: the model's.
      dtype: of the weights in the file.

    Raises:
      UserError: a file can't be written, or the model's family can't.
    """

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        for each in config.parameters():
            layers = read(each.name).reshape(each.layers or 1, *layer_shape(each))
            for name, layer in zip(each.huggingface_names(), layers, strict=True):
                yield name, layer.T if each.transposed else layer

    text = json.dumps(config_to_huggingface(config, dtype), indent=2) + "\n"
    shapes = huggingface_shapes(config)
    config_file, weights_file = folder / CONFIG_FILE, folder / SAFETENSORS
    write_safetensors(
        weights_file, arrays(), shapes, dict.fromkeys(shapes, as_dtype(dtype)), {"format": "pt"}
    )
    with atomic_write(config_file, fix=_FIX) as file:
        file.write(text.encode())
    return [config_file, weights_file]
