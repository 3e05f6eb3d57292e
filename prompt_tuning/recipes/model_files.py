"""Writes models with their vocabularies into folders that all commands accept."""

from collections.abc import Mapping

import numpy as np

from prompt_tuning.checkpoints.frozen.huggingface_export import save_huggingface
from prompt_tuning.checkpoints.frozen.locations import locate
from prompt_tuning.checkpoints.frozen.weights import (
    WEIGHTS_FILE,
    check_not_quantized,
    flatten,
    save_weights,
)
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.models.parameters import ModelConfig
from prompt_tuning.models.t5 import Params

HUGGING_FACE = "huggingface"
FORMATS = ("safetensors", HUGGING_FACE)


def write_model(
    folder: FilePath,
    params: Params,
    config: ModelConfig,
    vocabulary: Vocabulary,
    metadata: Mapping[str, str],
    *,
    form: str = "safetensors",
    fix: str = "Give another folder.",
) -> FilePath:
    """Writes a model and its vocabulary into an existing folder; returns the weights file.

    Raises:
      UserError: a file can't be written.
    """
    vocabulary.save(folder, fix=fix)
    if form == HUGGING_FACE:
        flat = flatten(params)
        check_not_quantized(flat, config)
        dtype = str(flat["token_embedder/embedding"].dtype)
        return save_huggingface(folder, lambda name: np.asarray(flat[name]), config, dtype)[1]
    path = folder / WEIGHTS_FILE
    of_vocabulary = {"vocabulary": vocabulary.path.name, "vocabulary_hash": vocabulary.hash}
    save_weights(path, params, config, {**of_vocabulary, **metadata})
    return path


def vocabulary_beside(source: str) -> Vocabulary | None:
    """Returns the vocabulary in a model's folder, or None."""
    found = locate(source)
    try:
        return find_vocabulary(found if found.is_dir() else found.parent)
    except UserError:
        return None
