"""Batches: what is in them, their order as a function of (seed, step), their padding."""

import itertools

import numpy as np
import pytest

from prompt_tuning.data.batching import BatchStream, bucket_lengths, eval_batches, pad_batch
from prompt_tuning.data.token_batches import TokenBatchStream, TokenBudget
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.errors import UserError
from prompt_tuning.training.side_by_side import stack_batches


def ragged(rows: list[np.ndarray]) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Ragged(np.concatenate(rows).astype(np.int32), offsets.astype(np.int64))


def split_of(size: int, seed: int = 0, longest: int = 100) -> TokenizedSplit:
    """Rows of random lengths; a row's first token tells which it is."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, size)
    inputs = [np.full(length, i + 1) for i, length in enumerate(lengths)]
    targets = [np.full(1 + i % 3, i + 1) for i in range(size)]
    return TokenizedSplit(
        task=f"toy{seed}",
        split="train",
        inputs=ragged(inputs),
        targets=ragged(targets),
        metadata_json=b"",
    )


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("tokens", [None, 400])
def test_a_mixtures_batch_tells_the_task_of_each_row(tokens):
    splits = [split_of(20, seed) for seed in (0, 1)]
    stream = BatchStream(splits, batch_size=4, seed=1)
    if tokens is not None:
        stream = TokenBatchStream(splits, budget=TokenBudget(tokens=tokens), seed=1)
    tasks = []
    for step in range(8):
        batch = stream.batch(step)
        assert batch["task"].dtype == np.int32
        np.testing.assert_array_equal(batch["task"], stream.examples(step)[:, 0])
        tasks += [*batch["task"]]
    assert set(tasks) == {0, 1}


def test_features_of_a_batch():
    split = split_of(20)
    stream = BatchStream(split, batch_size=4, seed=1)
    batch = stream.batch(3)
    for row, (_, example) in enumerate(stream.examples(3)):
        source, target = split.inputs[example], split.targets[example]
        width = batch["encoder_input_tokens"].shape[1]
        padded = np.pad(source, (0, width - len(source)))
        np.testing.assert_array_equal(batch["encoder_input_tokens"][row], padded)
        # Targets are at most 3 long; the decoder reads them one step late, from the padding id.
        pad = (0, 3 - len(target))
        np.testing.assert_array_equal(batch["decoder_target_tokens"][row], np.pad(target, pad))
        late = np.pad(target, (1, 2))[:3]
        np.testing.assert_array_equal(batch["decoder_input_tokens"][row], late)
        np.testing.assert_array_equal(
            batch["decoder_loss_weights"][row], np.pad(np.ones(len(target)), pad)
        )
    assert {name: array.dtype for name, array in batch.items()} == {
        "encoder_input_tokens": np.int32,
        "decoder_input_tokens": np.int32,
        "decoder_target_tokens": np.int32,
        "decoder_loss_weights": np.float32,
    }


def test_another_padding_than_t5s():
    batch = pad_batch([np.array([5, 0, 2])], [np.array([4, 2])], (4,), 3, pad_id=1)
    assert batch["encoder_input_tokens"].tolist() == [[5, 0, 2, 1]]
    assert batch["decoder_target_tokens"].tolist() == [[4, 2, 1]]
    assert batch["decoder_loss_weights"].tolist() == [[1, 1, 0]]
    shorter = pad_batch([np.array([6, 2])], [np.array([2])], (2,), 1, pad_id=1)
    found = stack_batches([batch, shorter], pad_id=1)
    assert found["encoder_input_tokens"].tolist() == [[[5, 0, 2, 1]], [[6, 2, 1, 1]]]
    assert found["decoder_loss_weights"].tolist() == [[[1, 1, 0]], [[1, 0, 0]]]


def test_order_is_a_function_of_seed_and_step():
    split = split_of(50)
    forward = BatchStream(split, batch_size=4, seed=7)
    backward = BatchStream(split, batch_size=4, seed=7)
    there = [forward.batch(step) for step in range(60)]
    back = [backward.batch(step) for step in reversed(range(60))]
    assert all(same(a, b) for a, b in zip(there, reversed(back), strict=True))
    assert same(BatchStream(split, batch_size=4, seed=7).batch(59), there[59])

    other = BatchStream(split, batch_size=4, seed=8)
    assert not all(same(other.batch(step), there[step]) for step in range(5))


def test_order_is_the_same_on_every_machine():
    """A changed order would make resumed runs differ: change it knowingly."""
    stream = BatchStream(split_of(10), batch_size=2, seed=0)
    assert [stream.examples(step)[:, 1].tolist() for step in range(4)] == [
        [4, 2],
        [7, 6],
        [5, 3],
        [9, 0],
    ]


@pytest.mark.parametrize(("size", "batch_size"), [(50, 4), (64, 8), (7, 4), (3, 8), (1000, 32)])
def test_every_example_comes_equally_often(size, batch_size):
    stream = BatchStream(split_of(size), batch_size=batch_size, seed=3)
    steps = 2 * size
    seen = np.concatenate([stream.examples(step)[:, 1] for step in range(steps)])
    counts = np.bincount(seen, minlength=size)
    assert counts.sum() == steps * batch_size
    # These are whole epochs, but the last window may reach into the next, its batches shuffled.
    assert counts.max() - counts.min() <= 2


def test_epochs_have_different_orders():
    stream = BatchStream(split_of(32), batch_size=32, seed=0)
    first, second = (stream.examples(step)[:, 1] for step in range(2))
    assert sorted(first) == sorted(second) == list(range(32))
    assert first.tolist() != second.tolist()


def test_batches_come_in_few_shapes_with_little_padding():
    split = split_of(2000)
    stream = BatchStream(split, batch_size=16, seed=0, num_lengths=4)
    batches = [stream.batch(step)["encoder_input_tokens"] for step in range(200)]
    assert {(batch.shape[1], 3) for batch in batches} == set(stream.shapes)
    assert len(stream.shapes) == 4
    padding = 1 - sum((b > 0).sum() for b in batches) / sum(b.size for b in batches)
    # Lengths are uniform on 1 to 100: padding all to 104 wastes half, four buckets about a fifth.
    assert padding < 0.25


def test_long_and_short_batches_alternate():
    """Sorting must not make a curriculum: consecutive batches' lengths are uncorrelated."""
    stream = BatchStream(split_of(2000), batch_size=16, seed=0)
    means = [
        np.mean((stream.batch(step)["encoder_input_tokens"] > 0).sum(axis=1)) for step in range(320)
    ]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def cost_of(lengths: np.ndarray, buckets) -> int:
    return sum(min(b for b in buckets if b >= length) for length in lengths)


@pytest.mark.parametrize("num_buckets", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_buckets_are_the_best(seed, num_buckets):
    lengths = np.random.default_rng(seed).integers(1, 80, 30)
    found = bucket_lengths(lengths, num_buckets)
    candidates = range(8, 88, 8)
    best = min(
        cost_of(lengths, buckets)
        for buckets in itertools.combinations(candidates, num_buckets)
        if buckets[-1] >= lengths.max()
    )
    assert len(found) == num_buckets
    assert list(found) == sorted(found)
    assert cost_of(lengths, found) == best


def test_no_more_buckets_than_lengths():
    assert bucket_lengths(np.array([5, 6, 30]), 4) == (8, 32)


def test_mixed_splits_have_their_shares():
    splits = [split_of(300, 1), split_of(60, 2), split_of(20, 3)]
    rates = [0.75, 0.2, 0.05]
    stream = BatchStream(splits, batch_size=8, seed=0, rates=rates)
    drawn = np.concatenate([stream.examples(step) for step in range(480)])
    counts = np.bincount(drawn[:, 0], minlength=3)
    np.testing.assert_allclose(counts, 480 * 8 * np.array(rates), atol=1)
    for split, size in enumerate((300, 60, 20)):
        seen = np.bincount(drawn[drawn[:, 0] == split, 1], minlength=size)
        assert seen.max() - seen.min() <= 1


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_many_splits_and_small_batches(batch_size):
    splits = [split_of(10 + i, i) for i in range(8)]
    stream = BatchStream(splits, batch_size=batch_size, seed=0)
    drawn = np.concatenate([stream.examples(step) for step in range(800)])
    assert drawn.shape == (800 * batch_size, 2)
    np.testing.assert_allclose(np.bincount(drawn[:, 0]), 100 * batch_size, atol=8)


def test_mixed_order_is_a_function_of_seed_and_step():
    splits = [split_of(30, 1), split_of(60, 2)]
    streams = [BatchStream(splits, batch_size=8, seed=0, rates=[1.0, 2.0]) for _ in range(2)]
    assert same(streams[0].batch(37), [streams[1].batch(step) for step in range(38)][37])


@pytest.mark.parametrize(("size", "batch_size"), [(50, 8), (48, 8), (3, 8)])
def test_eval_batches_hold_every_example_once(size, batch_size):
    split = split_of(size)
    rows = []
    for batch, numbers in eval_batches(split, batch_size):
        assert all(len(array) == batch_size for array in batch.values())
        for row, example in enumerate(numbers):
            assert batch["encoder_input_tokens"][row, 0] == example + 1
            assert batch["decoder_loss_weights"][row].sum() == len(split.targets[example])
        assert batch["decoder_loss_weights"][len(numbers) :].sum() == 0
        # A filled row reads something, so that no softmax is over nothing.
        assert (batch["encoder_input_tokens"][:, 0] > 0).all()
        rows.extend(numbers.tolist())
    assert sorted(rows) == list(range(size))


def test_bad_options():
    with pytest.raises(UserError, match="batch_size is 0"):
        BatchStream(split_of(3), batch_size=0, seed=0)
    with pytest.raises(UserError, match="seed is -1"):
        BatchStream(split_of(3), batch_size=1, seed=-1)
    with pytest.raises(UserError, match="batch_size is -2"):
        next(eval_batches(split_of(3), -2))
