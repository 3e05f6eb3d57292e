"""A tiny model, a folder of prompts for it, and the predictor of both."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def predictor(compile_once, tiny_weights_file, tiny_vocabulary_file):
    """Answers with at most six tokens, in batches of up to two; without prompts at first."""
    from prompt_tuning import Predictor
    from prompt_tuning.checkpoints.frozen.weights import load_weights
    from prompt_tuning.data.vocabularies import Vocabulary
    from prompt_tuning.models.decoding import DecodingOptions

    return Predictor(
        *load_weights(tiny_weights_file)[:2],
        Vocabulary(tiny_vocabulary_file),
        batch_size=2,
        max_input_length=16,
        decoding=DecodingOptions(max_length=6),
    )


@pytest.fixture
def prompts(tmp_path):
    """A folder with three prompts of different lengths: rte, wsc and wic.

    The first two tell their task, the third doesn't.
    """
    from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt

    folder = tmp_path / "prompts"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name, length in {"rte": 3, "wsc": 8}.items():
        metadata = PromptMetadata(model="tiny_random", task=f"tinyworld_{name}", step=7, score=0.5)
        save_prompt(folder / name, rng.normal(size=(length, 16)), metadata)
    np.save(folder / "wic.npy", rng.normal(size=(1, 16)).astype(np.float32))
    return folder


@pytest.fixture
def folder(prompts, predictor):
    """The same, loaded into the predictor for one test."""
    from prompt_tuning.recipes.task_file import task_of_prompt
    from prompt_tuning.serving.prompt_folder import PromptFolder

    found = PromptFolder(prompts, predictor, task_of_prompt)
    found.rescan()
    yield found
    for name in list(predictor.prompts):
        predictor.remove(name)
