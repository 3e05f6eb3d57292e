"""Span corruption and LM adaptation on token ids."""

import numpy as np
import pytest

from prompt_tuning.data.pretraining import (
    lm_adaptation,
    piece_lengths,
    span_corruption,
    span_corruption_lengths,
)
from prompt_tuning.errors import UserError

VOCAB_SIZE = 200
TEXT = list(range(10, 60))


def merge(inputs: list[int], targets: list[int]) -> list[int]:
    """Puts the spans of the targets where their sentinels stand in the inputs."""
    spans: dict[int, list[int]] = {}
    for token in targets[:-1]:
        if token >= 100:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    merged = []
    for token in inputs[:-1]:
        merged += spans.pop(token) if token >= 100 else [token]
    assert not spans
    return merged


@pytest.mark.parametrize("length", [2, 3, 7, 50])
@pytest.mark.parametrize("seed", range(5))
def test_spans_put_back_are_the_text(length, seed):
    rng = np.random.default_rng(seed)
    inputs, targets = span_corruption(TEXT[:length], rng, vocab_size=VOCAB_SIZE)
    assert inputs[-1] == targets[-1] == 1
    assert merge(inputs, targets) == TEXT[:length]


def test_density_and_span_length_are_as_asked():
    rng = np.random.default_rng(0)
    inputs, targets = span_corruption(
        TEXT, rng, vocab_size=VOCAB_SIZE, noise_density=0.3, mean_span_length=5.0
    )
    sentinels = [token for token in targets if token >= 100]
    assert sentinels == [199, 198, 197]
    assert len(targets) - 1 - len(sentinels) == 15
    assert len(inputs) - 1 - len(sentinels) == 35


def test_every_place_is_corrupted_now_and_then():
    hidden = set()
    for seed in range(300):
        inputs, _ = span_corruption(TEXT[:20], np.random.default_rng(seed), vocab_size=VOCAB_SIZE)
        hidden |= set(TEXT[:20]) - set(inputs)
    assert hidden == set(TEXT[:20])


@pytest.mark.parametrize(
    ("input_length", "options", "expected"),
    [
        (512, {}, (568, 114)),
        (64, {"noise_density": 0.2, "mean_span_length": 2.0}, (70, 22)),
        (64, {"noise_density": 0.2, "mean_span_length": 1.0}, (63, 27)),
    ],
)
def test_lengths_are_t5s(input_length, options, expected):
    """As `random_spans_helper` of T5 gives them; the last two are in its own test."""
    assert span_corruption_lengths(input_length, **options) == expected
    rng = np.random.default_rng(0)
    inputs, targets = span_corruption(range(3, 3 + expected[0]), rng, vocab_size=1000, **options)
    assert (len(inputs) <= input_length, len(targets)) == (True, expected[1])


@pytest.mark.parametrize(
    ("objective", "lengths", "expected"),
    [
        ("span_corruption", (512, 114), (568, 114)),
        ("span_corruption", (512, None), (568, 114)),
        ("span_corruption", (512, 200), (568, 200)),
        ("span_corruption", (3, 3), (2, 3)),
        ("lm_adaptation", (512, 512), (511, 512)),
        ("lm_adaptation", (512, None), (511, 512)),
        ("lm_adaptation", (512, 64), (63, 64)),
        ("lm_adaptation", (3, 3), (2, 3)),
    ],
)
def test_pieces_are_as_long_as_fits(objective, lengths, expected):
    assert piece_lengths(objective, *lengths) == expected


@pytest.mark.parametrize("target_length", [3, 4, 6, 9, 50])
def test_pieces_are_the_longest_whose_targets_fit(target_length):
    length, _ = piece_lengths("span_corruption", 200, target_length)

    def targets(length: int) -> int:
        rng = np.random.default_rng(0)
        return len(span_corruption(range(3, 3 + length), rng, vocab_size=1000)[1])

    assert targets(length) <= target_length
    assert length == piece_lengths("span_corruption", 200)[0] or targets(length + 1) > target_length


@pytest.mark.parametrize(
    ("objective", "lengths", "told"),
    [
        ("lm_adaption", (8, 8), "Unknown objective 'lm_adaption'.*Did you mean 'lm_adaptation'"),
        ("span_corruption", (2, 8), "inputs of 2 tokens is not possible.*at least 3"),
        ("lm_adaptation", (8, 2), "targets of 2 tokens is not possible.*at least 3"),
    ],
)
def test_what_fits_nothing_is_refused(objective, lengths, told):
    with pytest.raises(UserError, match=told):
        piece_lengths(objective, *lengths)


def test_lm_adaptation_asks_for_the_rest():
    assert lm_adaptation([5, 6], [7]) == ([5, 6, 1], [7, 1])
