"""Which runs a sweep has."""

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.grid import (
    combinations,
    grid_axes,
    list_axis,
    short_hash,
    slug,
    zipped_axis,
)


def test_a_grid_is_each_with_each():
    found = list(combinations(grid_axes({"SEED": [0, 1], "gin_file": ["a.gin", ["b.gin", "c"]]})))
    assert found == [
        {"gin_file": ["a.gin"], "SEED": 0},
        {"gin_file": ["b.gin", "c"], "SEED": 0},
        {"gin_file": ["a.gin"], "SEED": 1},
        {"gin_file": ["b.gin", "c"], "SEED": 1},
    ]


def test_zip_and_list_are_one_axis_each():
    axes = [
        *zipped_axis({"A": [1, 2], "B": [3, 4]}),
        *list_axis([{"C": 5}, {"D": 6}]),
    ]
    assert list(combinations(axes)) == [
        {"A": 1, "B": 3, "C": 5},
        {"A": 1, "B": 3, "D": 6},
        {"A": 2, "B": 4, "C": 5},
        {"A": 2, "B": 4, "D": 6},
    ]
    assert list(combinations([])) == [{}], "without axes there is one run"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid_axes({"SEED": 3}), "SEED = 3; expected a list"),
        (lambda: grid_axes({"SEED": []}), "expected a list"),
        (lambda: zipped_axis({"A": [1], "B": [1, 2]}), "A has 1, B has 2 values"),
        (lambda: list_axis([["SEED", 1]]), "expected settings by name"),
        (
            lambda: list(combinations([*grid_axes({"A": [1]}), *list_axis([{"A": 2}])])),
            "sets A twice",
        ),
    ],
)
def test_what_no_sweep_can_be(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_slugs_are_readable_and_fit_for_a_folder():
    settings = {"gin_file": ["tasks/rte.gin"], "train.seed": 1, "PROMPT_FILE": "a/b c"}
    assert slug(settings) == "rte-seed_1-prompt_file_a_b_c"
    assert slug({}) == "as_set"
    assert len(slug({f"NAME_{i}": i for i in range(50)})) <= 100
    assert short_hash({"a": 1, "b": 2}) == short_hash({"b": 2, "a": 1}) != short_hash({"a": 1})
