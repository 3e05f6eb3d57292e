"""A prompt for several tasks: each task's part in it, and starting a new task from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods.multitask import MultitaskPrompt, adapted
from prompt_tuning.methods.prompt import SoftPrompt

LENGTH, EMBED, TASKS = 4, 6, 3
METHOD = MultitaskPrompt(length=LENGTH, embed_dim=EMBED, tasks=TASKS)


@pytest.fixture
def trained():
    rng = np.random.default_rng(0)
    first = METHOD.init(jax.random.key(0), {})
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), first)


def prompt_of(trained, task):
    params = trained["params"]
    return params["prompt"] * np.outer(params["columns"][task], params["rows"][task])


def test_each_example_gets_the_prompt_of_its_task(trained):
    tasks = np.array([2, 0, 2, 1], np.int32)
    prompts = METHOD.apply(trained, {"task": tasks}).encoder_prompt
    assert prompts.shape == (4, LENGTH, EMBED)
    for row, task in enumerate(tasks):
        np.testing.assert_allclose(prompts[row], prompt_of(trained, task), rtol=1e-6)


def test_each_tasks_prompt_can_be_had_by_itself(trained):
    for task in range(TASKS):
        method, variables = METHOD.of_task(trained, task)
        assert isinstance(method, SoftPrompt)
        prompt = variables["params"]["prompt"]
        np.testing.assert_allclose(prompt, prompt_of(trained, task), rtol=1e-6)
    assert METHOD.fold(trained) == (METHOD, trained)  # of several tasks there is no one prompt
    with pytest.raises(UserError, match="no task 3 among the 3"):
        METHOD.of_task(trained, 3)


def test_a_new_task_starts_from_what_others_have_learnt(trained):
    method = adapted(trained)
    first = method.init(jax.random.key(5), {})
    params = trained["params"]
    np.testing.assert_array_equal(first["params"]["prompt"], params["prompt"])
    np.testing.assert_allclose(first["params"]["rows"][0], params["rows"].mean(axis=0), rtol=1e-6)
    columns = first["params"]["columns"]
    np.testing.assert_allclose(columns[0], params["columns"].mean(axis=0), rtol=1e-6)
    folded, variables = method.fold(first)  # a task alone needs no batch that names it
    assert isinstance(folded, SoftPrompt)
    expected = params["prompt"] * np.outer(columns[0], first["params"]["rows"][0])
    np.testing.assert_allclose(variables["params"]["prompt"], expected, rtol=1e-6)


def test_examples_of_unknown_tasks_are_refused(trained):
    with pytest.raises(UserError, match="of 3 tasks was given examples without their task"):
        METHOD.apply(trained, {"encoder_input_tokens": np.ones((2, 3), np.int32)})
