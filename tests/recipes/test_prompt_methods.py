"""Methods that start from other tasks' prompts: which files they take, what is told of others."""

import dataclasses

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.data.mixtures import get_tasks
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.methods.attention_mixed import attention_mixed_prompt, mixed_prompt
from prompt_tuning.methods.multitask import adapted_multitask_prompt, multitask_prompt
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import init_params
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


def test_the_most_similar_prompts_are_averaged_by_similarity(base, prompts, tmp_path):
    rte, cb = prompts["superglue_rte"], prompts["superglue_cb"]
    target = save_prompt(tmp_path / "t", value_of(rte) + 2 * value_of(cb), PromptMetadata())[0]
    options = {"target": str(target), "sources": [rte, cb], "top": 2}
    initialize = initializers.most_similar(**options)(base)
    found = initialize(jax.random.key(0), (3, EMBED), np.float32)
    means = [
        value.mean(axis=0)
        for value in (value_of(rte) + 2 * value_of(cb), value_of(rte), value_of(cb))
    ]
    cosines = [means[0] @ mean / np.linalg.norm(mean) for mean in means[1:]]
    expected = (cosines[0] * value_of(rte) + cosines[1] * value_of(cb)) / sum(cosines)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="most_similar.top is 0"):
        initializers.most_similar(**{**options, "top": 0})(base)


def test_prompts_are_combined_by_weights(base, prompts):
    rte, cb = prompts["superglue_rte"], prompts["superglue_cb"]
    for weights, expected in (
        (None, (value_of(rte) + value_of(cb)) / 2),
        ([1, -0.5], value_of(rte) - 0.5 * value_of(cb)),
    ):
        initialize = initializers.combined(sources=[rte, cb], weights=weights)(base)
        found = initialize(jax.random.key(0), (3, EMBED), np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="has 1 entries for 2 prompts"):
        initializers.combined(sources=[rte, cb], weights=[1.0])(base)


def test_a_prompt_of_another_model_is_mapped_as_its_vocabulary(base, tmp_path):
    """The two embed the same pieces, one of them by half as many features."""
    numbers = np.random.default_rng(2)
    narrow = T5Config(
        name="tiny_narrow", vocab_size=384, embed_dim=8, num_heads=2, head_dim=8, mlp_dim=16,
        num_encoder_layers=1, num_decoder_layers=1,
    )  # fmt: skip
    params = init_params(narrow, jax.random.key(0))
    table = np.asarray(params["token_embedder"]["embedding"])
    save_weights(tmp_path / "model.safetensors", params, narrow)
    turn = numbers.normal(size=(8, EMBED)).astype(np.float32)
    wide = dataclasses.replace(base, params={"token_embedder": {"embedding": table @ turn}})
    prompt = numbers.normal(size=(3, 8)).astype(np.float32)
    file = save_prompt(tmp_path / "narrow", prompt, PromptMetadata(model="tiny_narrow"))[1]
    for variant in ("v2v-lin", "lin-comb"):
        options = {"model": str(tmp_path / "model.safetensors"), "variant": variant}
        initialize = initializers.recycled(path=str(file), **options)(wide)
        found = initialize(jax.random.key(0), (3, EMBED), np.float32)
        np.testing.assert_allclose(found, prompt @ turn, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="'v2v'; expected v2v-lin or lin-comb.*mean 'v2v-lin'"):
        initializers.recycled(path=str(file), **{**options, "variant": "v2v"})(wide)


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
