"""Prompts of languages and of tasks, and combinations that were never trained."""

import jax
import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods.factored import FactoredPrompt
from prompt_tuning.methods.prompt import SoftPrompt

PARTS = (("en", "summarize"), ("en", "span"), ("th", "span"))
METHOD = FactoredPrompt(length=2, embed_dim=4, parts=PARTS)
TRAINED = METHOD.init(jax.random.key(0), {})
LANGUAGES = np.asarray(TRAINED["params"]["languages"]).reshape(2, 2, 4)
TASKS = np.asarray(TRAINED["params"]["tasks"]).reshape(2, 2, 4)


def test_each_example_has_its_language_s_and_its_task_s_prompt():
    prompts = METHOD.apply(TRAINED, {"task": np.array([2, 0, 1])}).encoder_prompt
    for prompt, (language, task) in zip(prompts, [(1, 1), (0, 0), (0, 1)], strict=True):
        np.testing.assert_array_equal(prompt, np.concatenate([LANGUAGES[language], TASKS[task]]))


def test_parts_are_combined_at_will():
    method, trained = METHOD.of_parts(TRAINED, "th", "summarize")
    assert method == SoftPrompt(length=4, embed_dim=4)
    expected = np.concatenate([LANGUAGES[1], TASKS[0]])
    np.testing.assert_array_equal(trained["params"]["prompt"], expected)


def test_a_single_task_s_is_folded_and_several_aren_t():
    one = FactoredPrompt(length=2, embed_dim=4, parts=PARTS[:1])
    folded, _ = one.fold(one.init(jax.random.key(0), {}))
    assert folded == SoftPrompt(length=4, embed_dim=4)
    assert METHOD.fold(TRAINED)[0] == METHOD


def test_what_is_missing_is_told():
    with pytest.raises(UserError, match="no language 'thai'; expected en, th. Did you mean 'th'"):
        METHOD.of_parts(TRAINED, "thai", "span")
    with pytest.raises(UserError, match="3 tasks was given examples without their task"):
        METHOD.apply(TRAINED, {})
