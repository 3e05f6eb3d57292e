"""Batches of a constant number of tokens, on made-up lengths and on those of the real tasks."""

import functools

import numpy as np
import pytest

from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.token_batches import TokenBatchStream, TokenBudget, token_eval_batches
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError

BUDGET = TokenBudget(tokens=1000, extra=20, row_multiple=2, num_lengths=4)
PROMPT = 100


def ragged(rows) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Ragged(np.concatenate(rows).astype(np.int32), offsets.astype(np.int64))


def made_of(inputs, targets, name="toy") -> TokenizedSplit:
    return TokenizedSplit(
        task=name,
        split="train",
        inputs=ragged(inputs),
        targets=ragged(targets),
        metadata_json=b"",
    )


def split_of(size: int, seed: int = 0, longest: int = 100) -> TokenizedSplit:
    """Rows of random lengths; a row's tokens tell which it is."""
    lengths = np.random.default_rng(seed).integers(1, longest + 1, size)
    inputs = [np.full(length, i + 1) for i, length in enumerate(lengths)]
    return made_of(inputs, [np.full(1 + i % 3, i + 1) for i in range(size)], f"toy{seed}")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_batch_has_as_many_rows_as_fit():
    stream = TokenBatchStream(split_of(500), budget=BUDGET, seed=0)
    rows_of = {}
    for step in range(100):
        rows, length = stream.batch(step)["encoder_input_tokens"].shape
        assert rows_of.setdefault(length, rows) == rows
    assert len(rows_of) == len(stream.shapes) == 4
    for length, rows in rows_of.items():
        assert rows % 2 == 0
        assert rows * (length + 20) <= 1000 < (rows + 2) * (length + 20)


def test_a_row_is_never_refused():
    assert TokenBudget(tokens=10, row_multiple=4).rows(64) == 4


def test_the_rows_are_the_examples():
    split = split_of(300)
    stream = TokenBatchStream(split, budget=BUDGET, seed=1)
    for step in range(20):
        batch, examples = stream.batch(step), stream.examples(step)
        assert len(examples) == len(batch["encoder_input_tokens"])
        for row, (of_split, example) in enumerate(examples):
            assert of_split == 0
            inputs = batch["encoder_input_tokens"][row]
            np.testing.assert_array_equal(inputs[inputs > 0], split.inputs[example])
            targets = batch["decoder_target_tokens"][row]
            np.testing.assert_array_equal(targets[targets > 0], split.targets[example])


def test_order_is_a_function_of_seed_and_step():
    split = split_of(200)
    forward = TokenBatchStream(split, budget=BUDGET, seed=7)
    there = [forward.batch(step) for step in range(150)]
    backward = TokenBatchStream(split, budget=BUDGET, seed=7)
    back = [backward.batch(step) for step in reversed(range(150))]
    assert all(same(a, b) for a, b in zip(there, reversed(back), strict=True))
    other = TokenBatchStream(split, budget=BUDGET, seed=8)
    assert not all(same(other.batch(step), there[step]) for step in range(5))


@pytest.mark.parametrize("size", [3, 40, 700])
def test_every_example_comes_equally_often(size):
    stream = TokenBatchStream(split_of(size), budget=BUDGET, seed=3)
    counts = np.zeros(size, int)
    for step in range(640):
        np.add.at(counts, stream.examples(step)[:, 1], 1)
    # A bucket may be a batch ahead of its share, and an epoch of it begun.
    assert counts.max() - counts.min() <= 4 + 0.02 * counts.mean()
    assert counts.min() > 0


def test_mixed_splits_have_their_shares():
    splits = [split_of(300, 1, 100), split_of(60, 2, 30), split_of(20, 3, 90)]
    rates = np.array([0.75, 0.2, 0.05])
    stream = TokenBatchStream(splits, budget=BUDGET, seed=0, rates=rates)
    drawn = np.concatenate([stream.examples(step)[:, 0] for step in range(640)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), rates, atol=0.01)


def test_short_and_long_batches_take_turns():
    stream = TokenBatchStream(split_of(2000), budget=BUDGET, seed=0)
    lengths = [stream.batch(step)["encoder_input_tokens"].shape[1] for step in range(320)]
    assert abs(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) < 0.2


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("size", [1, 50, 333])
def test_eval_batches_hold_every_example_once(size, multiple):
    split = split_of(size)
    budget = TokenBudget(tokens=1000, row_multiple=multiple, num_lengths=3)
    found, shapes = [], set()
    for batch, numbers in token_eval_batches(split, budget):
        shapes.add(batch["encoder_input_tokens"].shape)
        assert len(batch["encoder_input_tokens"]) % multiple == 0
        for row, example in enumerate(numbers):
            assert batch["encoder_input_tokens"][row, 0] == example + 1
            assert batch["decoder_loss_weights"][row].sum() == len(split.targets[example])
        assert batch["decoder_loss_weights"][len(numbers) :].sum() == 0
        assert (batch["encoder_input_tokens"][:, 0] > 0).all()
        found.extend(numbers.tolist())
    assert sorted(found) == list(range(size))
    assert len(shapes) <= 3


def test_bad_options():
    with pytest.raises(UserError, match="BATCH_TOKENS is 0; it must be at least 1"):
        TokenBudget(tokens=0)
    with pytest.raises(UserError, match="num_lengths is 0"):
        TokenBudget(tokens=8, num_lengths=0)
    with pytest.raises(UserError, match="seed is -1"):
        TokenBatchStream(split_of(3), budget=BUDGET, seed=-1)


@pytest.fixture(scope="module")
def real_split(real_data):
    """A split of an official file with the real vocabulary, cut to 512 tokens as in training."""
    vocabulary = Vocabulary(real_data / "vocab" / "t5_sentencepiece_32k.model")

    @functools.cache
    def load(task: str, split: str) -> TokenizedSplit:
        examples = list(get_task(f"superglue_{task}").examples(split, str(real_data / "superglue")))
        inputs = [[*vocabulary.encode(row.inputs)[:511], 1] for row in examples]
        targets = [[*vocabulary.encode(row.targets)[:7], 1] for row in examples]
        return made_of(inputs, targets, task)

    return load


def padding(batches) -> float:
    """The share of the encoder's positions that are padding; those of the prompt aren't."""
    computed = sum(len(b) * (PROMPT + b.shape[1]) for b in batches)
    return 1 - sum(np.sum(b > 0) + len(b) * PROMPT for b in batches) / computed


# The official train split of BoolQ isn't at hand: its 3,270 validation rows stand in for it.
@pytest.mark.parametrize(
    ("task", "split"),
    [("rte", "train"), ("cb", "train"), ("wic", "train"), ("copa", "train")]
    + [("boolq", "validation")],
)
def test_little_padding_on_the_official_files(real_split, task, split):
    """At most a tenth of what the encoder computes is padding, with at most six shapes.

    No six lengths do so by the inputs alone, without the prompt: 17 % of RTE's input positions are
    padding at the best there is.
    """
    examples = real_split(task, split)
    budget = TokenBudget(tokens=32 * (PROMPT + 128), extra=PROMPT, num_lengths=6)
    stream = TokenBatchStream(examples, budget=budget, seed=0)
    steps = 3 * len(examples) // 32
    batches = [stream.batch(step)["encoder_input_tokens"] for step in range(steps)]
    assert len({batch.shape for batch in batches}) <= 6
    assert padding(batches) <= 0.10
    assert all(len(b) * (b.shape[1] + PROMPT) <= budget.tokens for b in batches)


@pytest.mark.parametrize("task", ["rte", "cb", "wic", "copa", "boolq"])
def test_little_padding_in_their_evaluation(real_split, task):
    examples = real_split(task, "validation")
    budget = TokenBudget(tokens=32 * (PROMPT + 128), extra=PROMPT, num_lengths=6)
    found = list(token_eval_batches(examples, budget))
    batches = [batch["encoder_input_tokens"] for batch, _ in found]
    assert len({batch.shape for batch in batches}) <= 6
    # Rows that only fill a batch up are padding too.
    real = sum(
        np.sum(b[: len(n)] > 0) + len(n) * PROMPT for b, (_, n) in zip(batches, found, strict=True)
    )
    computed = sum(len(b) * (PROMPT + b.shape[1]) for b in batches)
    assert 1 - real / computed <= 0.10
