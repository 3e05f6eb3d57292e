"""How alike prompts are, against the definitions."""

import numpy as np
import pytest

from prompt_tuning.analysis.prompt_similarity import (
    cosine_of_means,
    mean_of_cosines,
    most_similar_first,
)
from prompt_tuning.errors import UserError

A = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
B = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 0.0]], np.float32)


def test_both_measures_by_hand():
    assert cosine_of_means(A, B) == pytest.approx(np.sqrt(0.5))
    # Each of A's two vectors with each of B's three: cosines 1, 1, 0 and 0, 0, 0.
    assert mean_of_cosines(A, B) == pytest.approx(2 / 6)
    for measure in (cosine_of_means, mean_of_cosines):
        assert measure(A, B) == pytest.approx(measure(B, A))
        assert measure(A, -3 * B) == pytest.approx(-measure(A, B))


def test_the_most_similar_source_comes_first():
    sources = {"against": -B, "like": B, "across": np.array([[1.0, -1.0]])}
    ranked = most_similar_first(A, sources)
    assert list(ranked) == ["like", "across", "against"]
    assert ranked["across"] == pytest.approx(0)
    assert list(most_similar_first(A, sources, "mean_of_cosines")) == list(ranked)


@pytest.mark.parametrize(
    ("sources", "similarity", "message"),
    [
        ({}, "cosine_of_means", "no source prompts"),
        ({"a": A}, "euclidean", "not by 'euclidean'"),
        ({"a": np.ones((2, 3))}, "cosine_of_means", "prompt a is 3 wide.*task 2"),
    ],
)
def test_mistakes_are_told(sources, similarity, message):
    with pytest.raises(UserError, match=message):
        most_similar_first(A, sources, similarity)
