"""Removals against a score that is a sum of what each position is worth."""

import jax.numpy as jnp
import numpy as np

from prompt_tuning.analysis.removals import score_removals
from prompt_tuning.models.injection import add_prompt

WORTH = np.array([0.3, 0.05, 0.2, 0.05, 0.0], np.float32)
PROMPT = np.arange(10, dtype=np.float32).reshape(5, 2)


def test_scores_order_and_groups():
    groups = []

    def score_many(injections):
        groups.append(len(injections))
        for injection in injections:
            assert np.array_equal(injection.encoder_prompt[0], PROMPT)
        return [0.1 + float(WORTH @ np.asarray(i.encoder_prompt_mask[0])) for i in injections]

    found = score_removals(PROMPT, score_many, at_once=4)
    assert groups == [4, 4, 4, 4]  # six scores, then five, in groups of one size
    assert np.isclose(found.whole, 0.7)
    np.testing.assert_allclose(found.without, 0.7 - WORTH, rtol=1e-6)
    # Least important first, and of equals the later.
    assert found.order == (4, 3, 1, 2, 0)
    np.testing.assert_allclose(found.cumulative, [0.7, 0.65, 0.6, 0.4, 0.1], rtol=1e-6)


def test_what_is_removed_is_seen_by_nobody():
    seen = []

    def score_many(injections):
        for injection in injections:
            tokens = jnp.ones((1, 3, 2)), jnp.ones((1, 3), bool)
            embedded, mask = add_prompt(*tokens, injection)
            assert embedded.shape == (1, 8, 2)  # the distances stay what they were
            seen.append(np.asarray(mask[0, :5]))
        return [0.0] * len(injections)

    score_removals(PROMPT, score_many, at_once=11)
    whole, *alone = seen[:6]
    assert whole.all()
    assert np.array_equal(np.array(alone), ~np.eye(5, dtype=bool))
    assert not seen[15].any()
