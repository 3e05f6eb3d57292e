"""Nearest neighbors on tables where the answer is plain."""

import numpy as np
import pytest

from prompt_tuning.analysis.neighbors import format_neighbors, nearest_neighbors
from prompt_tuning.errors import UserError

TABLE = np.array([[1, 0], [0, 2], [10, 1], [-1, 0], [0, 0]], np.float32)


def ids(neighbors):
    return [[neighbor.id for neighbor in nearest] for nearest in neighbors]


def test_cosine_ignores_length():
    found = nearest_neighbors(np.array([[9.0, 0], [0, -1]]), TABLE, str, k=2)
    assert ids(found) == [[0, 2], [0, 3]]
    assert found[0][0].value == pytest.approx(1.0)
    assert found[0][1].value == pytest.approx(10 / np.sqrt(101))


def test_euclidean_is_distance():
    found = nearest_neighbors(np.array([[9.0, 1], [0, 2]]), TABLE, str, k=2, metric="euclidean")
    assert ids(found) == [[2, 0], [1, 4]]
    assert [n.value for n in found[0]] == pytest.approx([1.0, np.sqrt(65)])
    assert found[1][0].value == 0.0


def test_every_piece_is_its_own_nearest():
    table = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    for metric in ("cosine", "euclidean"):
        assert ids(nearest_neighbors(table, table, str, k=1, metric=metric)) == [
            [i] for i in range(300)
        ]


def test_rows_that_are_no_piece_can_be_left_out():
    found = nearest_neighbors(np.array([[10.0, 1]]), TABLE, str, k=2, num_pieces=2)
    assert ids(found) == [[0, 1]]


def test_pieces_are_named_and_printed():
    pieces = ["yes", "no", "maybe", "false", "pad"]
    found = nearest_neighbors(np.array([[1.0, 0]] * 11), TABLE, pieces.__getitem__, k=2)
    lines = format_neighbors(found).splitlines()
    assert lines[0] == " 0  yes 1.00  maybe 1.00" and lines[10] == "10  yes 1.00  maybe 1.00"


@pytest.mark.parametrize(
    ("width", "options", "message"),
    [
        (3, {}, "3 wide, but the embedding table is 2 wide"),
        (2, {"k": 6}, "-k is 6; expected 1 to 5"),
        (2, {"k": 0}, "-k is 0"),
        (2, {"metric": "manhattan"}, "expected 'cosine' or 'euclidean'"),
    ],
)
def test_mistakes_are_told(width, options, message):
    with pytest.raises(UserError, match=message):
        nearest_neighbors(np.zeros((1, width)), TABLE, str, **options)
