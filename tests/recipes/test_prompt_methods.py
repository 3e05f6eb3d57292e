"""Methods that start from other tasks' prompts: which files they take, what is told of others."""

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.data.mixtures import get_tasks
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.methods.attention_mixed import attention_mixed_prompt, mixed_prompt
from prompt_tuning.methods.multitask import adapted_multitask_prompt, multitask_prompt
from prompt_tuning.models.config import T5Config
from prompt_tuning.recipes import initializers
from prompt_tuning.recipes.frozen_base import Base, layout
from prompt_tuning.recipes.initializers import random_uniform
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.recipes.train import load_teachers

EMBED = 16


@pytest.fixture(scope="module")
def base(tiny_vocabulary_file):
    config = T5Config(
        name="tiny_random",
        vocab_size=384,
        embed_dim=EMBED,
        num_heads=2,
        head_dim=8,
        mlp_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
    vocabulary = find_vocabulary(tiny_vocabulary_file)
    return Base(config=config, params={}, vocabulary=vocabulary, layout=layout())


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Prompts of three tasks, one of them shorter than the others."""
    folder, rng = tmp_path_factory.mktemp("prompts"), np.random.default_rng(0)
    files = {}
    for task, length in (("superglue_rte", 3), ("superglue_cb", 3), ("superglue_copa", 2)):
        values = rng.normal(size=(length, EMBED)).astype(np.float32)
        metadata = PromptMetadata(model="tiny_random", task=task)
        files[task] = str(save_prompt(folder / task, values, metadata)[1])
    return files


def value_of(path):
    return np.load(path.replace(".safetensors", ".npy"))


def test_the_most_similar_prompt_is_started_from_and_named(base, prompts, tmp_path, capsys):
    rte, cb = prompts["superglue_rte"], prompts["superglue_cb"]
    noise = np.random.default_rng(1).normal(scale=0.3, size=(3, EMBED))
    near_cb = save_prompt(tmp_path / "near", value_of(cb) + noise, PromptMetadata())[0]
    initialize = initializers.most_similar(target=str(near_cb), sources=[rte, cb])(base)
    np.testing.assert_array_equal(
        initialize(jax.random.key(0), (3, EMBED), np.float32), value_of(cb)
    )
    told = capsys.readouterr().err
    assert told.startswith(f"Starting from {cb}, the most similar to {near_cb}")
    assert told.count("\n") == 1 and rte in told


def test_source_prompts_are_the_methods_constants(base, prompts):
    files = [prompts["superglue_rte"], prompts["superglue_cb"]]
    method = mixed_prompt(sources=files, initializer=random_uniform())(base)

    variables = method.init(jax.random.key(0), {})
    expected = np.stack([value_of(file) for file in files])
    np.testing.assert_array_equal(variables["sources"]["prompts"], expected)
    method = attention_mixed_prompt(sources=files, initializer=random_uniform())(base)
    assert method.temperature == pytest.approx(np.e * EMBED) and method.width == 100


def data_of(mixture):
    tasks = get_tasks(mixture)
    return Data(name=mixture, tasks=tasks, lengths={}, data_dir=None, batch_size=1)


def test_teachers_stand_in_the_order_of_the_tasks(base, prompts):
    rte, cb = prompts["superglue_rte"], prompts["superglue_cb"]
    data = data_of("superglue_rte")
    found = load_teachers(base, data, [rte])
    np.testing.assert_array_equal(found.encoder_prompt[0], value_of(rte))
    with pytest.raises(UserError, match="teacher of superglue_rte is .* trained on superglue_cb"):
        load_teachers(base, data, [cb])
    with pytest.raises(UserError, match="lists 1 prompts for the 8 tasks of superglue; give one"):
        load_teachers(base, data_of("superglue"), [rte])


def test_a_multitask_prompt_has_as_many_tasks_as_its_mixture(base):
    for name, tasks in (("superglue", 8), ("superglue_rte", 1)):
        method = multitask_prompt(length=3, mixture_or_task=name, initializer=random_uniform())(
            base
        )
        assert method.tasks == tasks


def test_files_that_do_not_fit_are_told(base, prompts):
    rte, copa = prompts["superglue_rte"], prompts["superglue_copa"]
    with pytest.raises(UserError, match="copa.* has 2 positions and .*rte.* has 3"):
        mixed_prompt(sources=[rte, copa], initializer=random_uniform())(base)
    for nothing in ([], rte):
        with pytest.raises(UserError, match="SOURCE_PROMPTS is .*; expected a list"):
            mixed_prompt(sources=nothing, initializer=random_uniform())(base)
    with pytest.raises(UserError, match="contains a soft_prompt; expected a multitask_prompt"):
        adapted_multitask_prompt(source=rte)(base)
