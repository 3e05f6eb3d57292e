"""Similarity of prompts, and their projection, where both can be told by eye."""

import numpy as np
import pytest

from prompt_tuning.analysis.similarity import (
    most_similar_first,
    project,
    similarity_matrix,
    within_and_between,
)
from prompt_tuning.errors import UserError

EAST = np.array([[1.0, 0, 0], [3, 0, 0]])
NORTH = np.array([[0, 2.0, 0]])
BOTH = np.array([[4.0, 0, 0], [0, 4, 0]])


def test_cosine_of_means_ignores_length_and_number_of_positions():
    matrix = similarity_matrix([EAST, NORTH, BOTH])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(matrix, [[1, 0, half], [0, 1, half], [half, half, 1]], atol=1e-12)


def test_mean_cosine_of_all_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in x for b in y]
    assert similarity_matrix([x, y], "positions")[0, 1] == pytest.approx(np.mean(pairs))


def test_pairs_of_one_task_and_of_two():
    matrix = np.array([[1, 0.9, 0.1], [0.9, 1, 0.3], [0.1, 0.3, 1]])
    within, between = within_and_between(matrix, ["rte", "rte", "cb"])
    assert (within, between) == (pytest.approx(0.9), pytest.approx(0.2))
    assert within_and_between(matrix, ["rte", "cb", "wic"])[0] is None


def test_projection_keeps_what_differs_most():
    rng = np.random.default_rng(1)
    groups = [rng.normal(center, 0.01, size=(6, 8)) for center in (1.0, -1.0)]
    places, shares = project(groups)
    assert [p.shape for p in places] == [(6, 2), (6, 2)]
    first, second = (p[:, 0] for p in places)
    assert first.min() > second.max() or second.min() > first.max()
    assert shares[0] > 0.99 and shares.sum() <= 1 + 1e-9
    # Distances on the plane are those of the unit vectors where two components are all there is.
    places, shares = project([EAST, NORTH])
    assert np.linalg.norm(places[0][0] - places[1][0]) == pytest.approx(np.sqrt(2))
    assert shares.sum() == pytest.approx(1)


def test_one_position_alone_has_a_place():
    places, shares = project([NORTH])
    assert np.array_equal(places[0], [[0, 0]]) and np.array_equal(shares, [0, 0])


def test_mistakes_are_told():
    with pytest.raises(UserError, match="3 and 4 wide"):
        similarity_matrix([EAST, np.ones((1, 4))])
    with pytest.raises(UserError, match="Did you mean 'positions'"):
        similarity_matrix([EAST, NORTH], "position")


A = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
B = np.array([[2.0, 0.0], [4.0, 0.0], [0.0, 0.0]], np.float32)


def test_both_measures_by_hand():
    assert most_similar_first(A, {"b": B})["b"] == pytest.approx(np.sqrt(0.5))
    # Each of A's two vectors with each of B's three: cosines 1, 1, 0 and 0, 0, 0.
    assert most_similar_first(A, {"b": B}, "mean_of_cosines")["b"] == pytest.approx(2 / 6)
    for measure in ("mean", "positions"):
        matrix = similarity_matrix([A, B, -3 * B], measure)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
        assert matrix[0, 2] == pytest.approx(-matrix[0, 1])


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
        ({"a": A}, "euclidean", "is 'euclidean'; expected"),
        ({"a": np.ones((2, 3))}, "cosine_of_means", "prompt a is 3 wide.*task's is 2"),
    ],
)
def test_wrong_sources_are_told(sources, similarity, message):
    with pytest.raises(UserError, match=message):
        most_similar_first(A, sources, similarity)
