"""Tightness, labels, repeats and cleaning on tables where the answer is plain."""

import numpy as np
import pytest

from prompt_tuning.analysis.clusters import (
    distinct_share,
    label_persistence,
    repeated_neighbors,
    tightness,
    tightness_by_chance,
)
from prompt_tuning.analysis.neighbors import cleaned, nearest_neighbors

TABLE = np.array([[1, 0], [1, 0.01], [0, 1], [-1, 0], [0, -1]], np.float32)
PIECES = ["▁true", "true", "▁false", "▁", "</s>"]


def test_pieces_are_cleaned_to_text():
    given = ["▁Technology", "ing", "▁", "</s>", "<0xE9>", "▁,", "▁100%", "<extra_id_0>"]
    assert [cleaned(piece) for piece in given] == [
        *("Technology", "ing", None, None, None, None, "100%", None)
    ]


def test_of_pieces_with_one_text_the_nearest_counts_and_others_are_left_out():
    found = nearest_neighbors(np.array([[1.0, 0]]), TABLE, lambda i: cleaned(PIECES[i]), k=2)
    assert [(n.id, n.piece) for n in found[0]] == [(0, "true"), (2, "false")]


def test_alike_neighbours_are_tight():
    prompt = np.array([[1.0, 0], [0.5, 1]])
    tight = tightness(nearest_neighbors(prompt, TABLE, str, k=2), TABLE)
    assert tight[0] == pytest.approx(1 / np.sqrt(1 + 1e-4), abs=1e-6)
    assert tight[1] < tight[0]
    assert list(tightness(nearest_neighbors(prompt, TABLE, str, k=1), TABLE)) == [1, 1]
    # Five pieces are all there are: every draw is all of them.
    everything = tightness(nearest_neighbors(prompt, TABLE, str, k=5), TABLE)
    assert tightness_by_chance(TABLE, 5) == pytest.approx(everything[0])


def test_a_label_that_stayed_is_told_from_one_that_went():
    prompt = np.array([[2, 0.004], [3.0, 0], [0.1, 4]], np.float32)
    labels = ["yes", "no", "maybe", "late"]
    ids = [[0], [3], [2, 4], [1]]
    yes, no, maybe, late = label_persistence(prompt, TABLE, labels, ids)
    assert (yes.start, yes.start_rank, yes.best_rank) == (0, 1, 1)
    assert yes.start_cosine == pytest.approx(1, abs=1e-4)
    assert (no.start_rank, no.best_position, no.best_rank) == (5, 2, 4)
    assert no.start_cosine == pytest.approx(-1)
    # Of several pieces the nearest counts; their mean here has no direction.
    assert (maybe.start, maybe.start_rank, maybe.start_cosine) == (2, 1, 0)
    assert (late.start, late.start_rank, late.start_cosine) == (None, None, None)
    (by_distance,) = label_persistence(prompt, TABLE, ["no"], [[3]], metric="euclidean")
    assert by_distance.best_rank == 4


def test_repeated_neighbours_and_their_positions():
    prompt = np.array([[0, 1.0], [1, 0], [0, 3], [5, 0], [0, 2]])
    found = nearest_neighbors(prompt, TABLE, str, k=1)
    assert repeated_neighbors(found) == {"2": [0, 2, 4], "0": [1, 3]}
    assert distinct_share(found) == 2 / 5
