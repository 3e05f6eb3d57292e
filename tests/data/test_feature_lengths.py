"""Lengths in part, and what is no length."""

import pytest

from prompt_tuning.data.feature_lengths import feature_lengths
from prompt_tuning.errors import UserError

OWN = {"inputs": 512, "targets": 8}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, OWN),
        ({}, OWN),
        ({"inputs": 64}, {"inputs": 64, "targets": 8}),
        ({"targets": 2, "inputs": 1}, {"inputs": 1, "targets": 2}),
    ],
)
def test_what_is_not_set_is_the_tasks_own(given, expected):
    assert feature_lengths(given, OWN) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": 64, "target": 8}, "unknown feature 'target'.* Did you mean 'targets'"),
        ({"inputs": 0}, "inputs is 0; expected a number of tokens"),
        ({"inputs": 64.5}, "inputs is 64.5; expected a number of tokens"),
        ({"targets": True}, "targets is True; expected a number of tokens"),
        ({"targets": "8"}, "targets is '8'; expected a number of tokens"),
    ],
)
def test_what_is_no_length(given, message):
    with pytest.raises(UserError, match=message):
        feature_lengths(given, OWN)


def test_without_a_task_both_are_needed():
    with pytest.raises(UserError, match="targets missing; expected a length in tokens for both"):
        feature_lengths({"inputs": 64})
