"""Training on batches of the user's own: what a batch is, and exact resumption."""

import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning.models.config import get_config
from prompt_tuning.recipes.batches import BatchSource, whole_batch

CONFIG = get_config("t5_1_1_small", vocab_size=1000)
RNG = np.random.default_rng(0)
BATCHES = [
    {
        "encoder_input_tokens": RNG.integers(2, 900, (4, 8)),
        "decoder_target_tokens": np.array([[5, 1, 0]] * 4),
    }
    for _ in range(3)
]
FEW = {"data.max_eval_examples": 32}


def firsts(source, steps):
    return [int(source.batch(step)["encoder_input_tokens"][0, 0]) for step in steps]


def test_what_is_missing_is_made_of_the_targets():
    batch = whole_batch(BATCHES[0], "It", CONFIG)
    assert batch["decoder_input_tokens"].tolist() == [[0, 5, 1]] * 4
    assert batch["decoder_loss_weights"].tolist() == [[1.0, 1.0, 0.0]] * 4
    kinds = {name: array.dtype for name, array in batch.items()}
    assert kinds.pop("decoder_loss_weights") == np.float32
    assert set(kinds.values()) == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": np.ones((4, 8), int)}, "has decoder_target_tokens, encoder_input_tokens, in"),
        ({"encoder_input_tokens": np.ones(4, int)}, r"has the shapes .*'encoder_.*: \[4\]"),
        ({"decoder_loss_weights": np.ones((4, 2))}, r"has the shapes .*: \[4, 2\]"),
        ({"encoder_input_tokens": np.full((4, 8), 1000)}, "has ids from 1000 to 1000 in enc"),
    ],
)
def test_what_is_no_batch_is_told_in_one_line(change, said):
    with pytest.raises(pt.UserError, match=f"The batch of step 7 {said}"):
        whole_batch({**BATCHES[0], **change}, "The batch of step 7", CONFIG)


def test_batches_by_step():
    expected = [int(batch["encoder_input_tokens"][0, 0]) for batch in BATCHES]
    again = [*expected, *expected]
    of_function = BatchSource(lambda step: BATCHES[step % 3], CONFIG)
    assert firsts(of_function, (5, 0, 4)) == [again[step] for step in (5, 0, 4)]
    assert firsts(BatchSource(BATCHES, CONFIG), (5, 0, 4)) == [again[step] for step in (5, 0, 4)]
    # What can be iterated over again begins anew; what can't is skipped to the step, and ends.
    assert firsts(BatchSource(dict(enumerate(BATCHES)).values(), CONFIG), range(6)) == again
    resumed = BatchSource(iter(BATCHES), CONFIG)
    assert firsts(resumed, (0, 0, 2)) == [expected[step] for step in (0, 0, 2)]
    with pytest.raises(pt.UserError, match="The batches end after 3, but step 3 needs another"):
        resumed.batch(3)
    with pytest.raises(pt.UserError, match="end after 0"):
        BatchSource([], CONFIG).batch(0)


@pytest.fixture(scope="module")
def base():
    return pt.load("tinyworld_tiny")


def test_a_run_on_batches_resumes_exactly(base, tmp_path):
    method = pt.soft_prompt(length=3, initializer=pt.sampled_vocabulary())

    def train(folder, batches, steps):
        return pt.train_on_batches(
            base,
            method,
            batches,
            folder=tmp_path / folder,
            steps=steps,
            checkpoint_every=1,
            quiet=True,
        )

    whole = train("whole", BATCHES, 3)
    assert whole.prompt.shape == (3, base.config.embed_dim)
    with pytest.raises(pt.UserError, match="nothing was evaluated"):
        _ = whole.score
    train("parts", BATCHES, 2)
    np.testing.assert_array_equal(train("parts", iter(BATCHES), 3).prompt, whole.prompt)
    with pytest.raises(pt.UserError, match="contents of the first batch"):
        train("parts", BATCHES[1:], 3)
    again = pt.load_run(whole.folder, base)
    assert again.predict(["Tom lost a goat."]) == whole.predict(["Tom lost a goat."])
    with pytest.raises(pt.UserError, match="was trained on batches"):
        again.evaluate()


def test_the_best_is_picked_by_batches_or_by_a_function(base, tmp_path, capsys):
    method = pt.soft_prompt(length=3, initializer=pt.sampled_vocabulary())
    options = {"steps": 2, "eval_every": 1, "quiet": True}
    by_loss = pt.train_on_batches(
        base, method, BATCHES, folder=tmp_path / "loss", evaluate=BATCHES[:2], **options
    )
    assert by_loss.score == -by_loss.metrics["loss"] < 0
    of_file = pt.load_prompt(by_loss.folder / "prompt_best.npy")[0]
    np.testing.assert_array_equal(of_file, by_loss.prompt)

    seen = []

    def evaluate(adapter):
        seen.append(adapter.prompt.shape)
        return -len(seen)

    by_function = pt.train_on_batches(
        base, method, BATCHES, folder=tmp_path / "function", evaluate=evaluate, **options
    )
    assert (by_function.score, by_function.best_step) == (-1, 0)
    assert seen == [(3, base.config.embed_dim)] * 3
    assert capsys.readouterr() == ("", "")
