"""Members of a population end as runs of their own do, to within rounding."""

import dataclasses
import functools
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.injection import Injection
from prompt_tuning.training.halving import Halving, best_until, ranked
from prompt_tuning.training.keys import stream_key
from prompt_tuning.training.loop import train_loop
from prompt_tuning.training.losses import cross_entropy
from prompt_tuning.training.optimizers import adafactor, adamw, linear_warmup
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.run import Evaluation, Member
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.side_by_side import (
    groups_by_length,
    make_side_by_side_step,
    program_sizes,
)
from prompt_tuning.training.signals import Interrupted
from prompt_tuning.training.step import MethodLoss, make_train_step

pytestmark = pytest.mark.usefixtures("compile_once")

SIDE_BY_SIDE_OR_NOT = pytest.mark.parametrize(
    "side_by_side", [True, False], ids=["side_by_side", "in_turns"]
)
VOCAB, EMBED = 32, 8
OPTIONS = TrainOptions(
    train_steps=12, log_every=4, eval_every=3, checkpoint_every=4, tensorboard=False
)


def make_batch(seed, step):
    """Inputs of two lengths, as buckets make them."""
    rng = np.random.default_rng([seed, step])
    inputs = np.zeros((4, 6 if rng.integers(2) else 9), np.int32)
    inputs[:, :5] = rng.integers(2, VOCAB, size=(4, 5))
    return {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": inputs[:, :2],
        "decoder_loss_weights": np.ones((4, 2), np.float32),
    }


@pytest.fixture(scope="module")
def frozen():
    rng = np.random.default_rng(0)
    return {
        "embedding": jnp.asarray(rng.normal(size=(VOCAB, EMBED)), jnp.float32),
        "output": jnp.asarray(rng.normal(size=(EMBED, VOCAB)), jnp.float32),
    }


def loss_fn(injection: Injection, frozen, batch, key):
    """A network of one attention: it sees the prompt's mask and the inputs' padding."""
    tokens = batch["encoder_input_tokens"]
    prompt, mask = injection.encoder_prompt, injection.encoder_prompt_mask
    mask = jnp.ones(prompt.shape[:2], bool) if mask is None else mask
    shape = (len(tokens), prompt.shape[1])
    source = jnp.concatenate(
        [jnp.broadcast_to(prompt, (*shape, EMBED)), frozen["embedding"][tokens]], axis=1
    )
    seen = jnp.concatenate([jnp.broadcast_to(mask, shape), tokens > 0], axis=1)
    targets = batch["decoder_target_tokens"]
    query = frozen["embedding"][targets] + 0.01 * jax.random.normal(key, (EMBED,))
    logits = jnp.where(seen[:, None], query @ source.mT, -1e9)
    hidden = jnp.tanh(query + jax.nn.softmax(logits) @ source)
    return cross_entropy(hidden @ frozen["output"], targets, batch["decoder_loss_weights"])


@functools.cache
def score_program():
    return jax.jit(lambda trained, frozen: loss_of(trained, frozen))


def loss_of(trained, frozen):
    injection = Injection(encoder_prompt=trained["params"]["prompt"][None])
    batch = jax.tree.map(jnp.asarray, make_batch(99, 0))
    return loss_fn(injection, frozen, batch, jax.random.key(0))[0]


def evaluation_of(trained, frozen):
    score = -float(score_program()(trained, frozen))
    return Evaluation(metrics={"nats": score}, score=score, predictions=[{"nats": score}])


def evaluate_all(frozen, members, numbers):
    return [evaluation_of(trained, frozen) for trained in numbers]


def make_member(path, *, seed=0, rate=0.1, length=3, make=adafactor, **changes) -> Member:
    folder = RunFolder.open(path, settings={"seed": seed}, config_text="")
    method = SoftPrompt(length=length, embed_dim=EMBED)

    def save_best(trained, step, score):
        metadata = PromptMetadata(model="tiny", step=step, score=score)
        save_prompt(folder.path / "prompt_best", trained["params"]["prompt"], metadata)

    arguments = {
        "name": path.name,
        "folder": folder,
        "options": dataclasses.replace(OPTIONS, seed=seed),
        "loss_fn": MethodLoss(method, loss_fn),
        "optimizer": make(rate),
        "trained": method.init(stream_key(seed, "prompt_init"), {}),
        "batches": lambda step: make_batch(seed, step),
        "save_best": save_best,
        "facts": {"task": "copy"},
        **changes,
    }
    return Member(**arguments)


def train_together(members, frozen, **changes):
    arguments = {
        "frozen": frozen,
        "evaluate": functools.partial(evaluate_all, frozen),
        "side_by_side": True,
        **changes,
    }
    return train_loop(members, **arguments)


def train_alone(member, frozen):
    (result,) = train_together([dataclasses.replace(member, name="")], frozen)
    return result


def numbers_in(path):
    """Every number of a run's record but its speed and its seconds."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    kept = ("step", "loss", "gradient_norm", "eval/nats", "eval/score")
    return [{name: row[name] for name in kept if name in row} for row in map(json.loads, lines)]


def assert_same_run(path, expected, rtol=1e-5):
    for row, expected_row in zip(numbers_in(path), numbers_in(expected), strict=True):
        assert row == pytest.approx(expected_row, rel=rtol)
    for name in ("prompt_best.npy", "prompt_best.safetensors"):
        (prompt, metadata), (other, other_metadata) = (
            load_prompt(folder / name) for folder in (path, expected)
        )
        np.testing.assert_allclose(prompt, other, rtol=rtol, atol=rtol)
        assert metadata.step == other_metadata.step
    names = [sorted(file.name for file in folder.rglob("*.jsonl")) for folder in (path, expected)]
    assert names[0] == names[1]
    steps = [
        sorted(file.name for file in (folder / "checkpoints").iterdir())
        for folder in (path, expected)
    ]
    assert steps[0] == steps[1]
    summary, expected_summary = (
        json.loads((folder / "summary.json").read_text()) for folder in (path, expected)
    )
    assert expected_summary.keys() <= summary.keys()
    for name in ("task", "best_step", "steps", "stopped_early", "trained_parameters"):
        assert summary[name] == expected_summary[name]


@SIDE_BY_SIDE_OR_NOT
@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_members_end_as_they_would_alone(tmp_path, frozen, accumulation, side_by_side):
    """Other seeds, rates, schedules, lengths and optimizer kinds, in one program or in three."""
    differences = {
        "a": {"seed": 1},
        "b": {"seed": 2, "rate": linear_warmup(0.3, 5), "length": 5},
        "c": {"seed": 1, "rate": 0.03, "make": adamw, "length": 1},
    }
    members = {
        kind: [
            make_member(tmp_path / kind / name, **difference)
            for name, difference in differences.items()
        ]
        for kind in ("together", "alone")
    }
    for each in members.values():
        each[:] = [
            dataclasses.replace(
                member,
                options=dataclasses.replace(member.options, accumulation_steps=accumulation),
            )
            for member in each
        ]
    before = jax.tree.map(np.array, frozen)
    results = train_together(members["together"], frozen, side_by_side=side_by_side)
    jax.tree.map(np.testing.assert_array_equal, frozen, before)
    assert [result.name for result in results] == ["a", "b", "c"]
    for result, member in zip(results, members["alone"], strict=True):
        alone = train_alone(member, frozen)
        assert (result.step, result.best.step) == (alone.step, alone.best.step)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
            result.trained,
            alone.trained,
        )
        assert_same_run(tmp_path / "together" / result.name, tmp_path / "alone" / result.name)


def count_compilations(monkeypatch):
    """Returns a list that grows by the number of members of each program compiled."""
    from prompt_tuning.training import loop, side_by_side

    def counting(make, members_of):
        def made(*arguments):
            step = make(*arguments)

            def call(*arguments):
                before = step._cache_size()
                result = step(*arguments)
                if step._cache_size() > before:
                    sizes.append(members_of(arguments[0]))
                return result

            return call

        return made

    sizes = []
    of_several = counting(make_side_by_side_step, len)
    monkeypatch.setattr(side_by_side, "make_side_by_side_step", of_several)
    monkeypatch.setattr(loop, "make_train_step", counting(make_train_step, lambda state: 1))
    return sizes


def same_length(seed):
    return lambda step: {
        name: np.ascontiguousarray(array[:, :6]) for name, array in make_batch(seed, step).items()
    }


ENDS = [3, 6, 9, 12, 6, 12]


def that_end_differently(folder, lengths):
    """Members with prompts of these lengths that make `ENDS` steps."""
    return [
        make_member(
            folder / f"m{place}",
            seed=place,
            length=length,
            batches=same_length(place),
            options=dataclasses.replace(OPTIONS, seed=place, train_steps=end),
        )
        for place, (end, length) in enumerate(zip(ENDS, lengths, strict=False))
    ]


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param((3, 3, 3, 3), id="alike"),
        pytest.param((3, 4, 3, 4), id="mixed", marks=pytest.mark.slow),
    ],
)
def test_members_that_stop_free_their_place(tmp_path, frozen, monkeypatch, lengths):
    """Six members in four places end at different steps; programs are compiled by halves."""
    sizes = count_compilations(monkeypatch)
    members = that_end_differently(tmp_path, lengths * 2)
    results = train_together(members, frozen, concurrency=4)
    assert [result.step for result in results] == ENDS
    # By halves for alike ones. In a mixed lineup a place given to another kind compiles again.
    assert sizes == ([4, 2, 1] if lengths[0] == lengths[1] else sizes)
    assert sorted(set(sizes), reverse=True) == [4, 2, 1]
    assert len(sizes) <= 5
    alone = make_member(tmp_path / "alone", seed=5, length=(lengths * 2)[5], batches=same_length(5))
    train_alone(alone, frozen)
    assert_same_run(tmp_path / "m5", tmp_path / "alone")


def test_one_after_another_members_share_a_program(tmp_path, frozen, monkeypatch):
    """Six members of two lengths in four places: a program for each length, of one member."""
    sizes = count_compilations(monkeypatch)
    members = that_end_differently(tmp_path, (3, 4) * 3)
    results = train_together(members, frozen, concurrency=4, side_by_side=False)
    assert [result.step for result in results] == ENDS
    assert sizes == [1, 1]


@SIDE_BY_SIDE_OR_NOT
def test_patience_is_each_members_own(tmp_path, frozen, side_by_side):
    options = dataclasses.replace(OPTIONS, patience=1)
    members = [make_member(tmp_path / name, options=options) for name in "ab"]

    def evaluate(members, numbers):
        scores = {"a": 0.5, "b": float(next(rising))}
        return [Evaluation(metrics={}, score=scores[member.name]) for member in members]

    rising = iter(range(100))
    results = train_together(members, frozen, evaluate=evaluate, side_by_side=side_by_side)
    assert [(result.step, result.best.step) for result in results] == [(3, 0), (12, 12)]
    assert results[0].ended == "no better score in 1 evaluations"
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["stopped_early"] and summary["ended"] == results[0].ended


@SIDE_BY_SIDE_OR_NOT
def test_a_stopped_population_goes_on_to_the_same_result(tmp_path, frozen, side_by_side):
    def members(kind, stop_at=None):
        def batches(seed, step):
            if step == stop_at and seed == 1:
                signal.raise_signal(signal.SIGTERM)
            return make_batch(seed, step)

        return [
            make_member(
                tmp_path / kind / f"m{seed}", seed=seed, batches=functools.partial(batches, seed)
            )
            for seed in range(3)
        ]

    train_together(members("whole"), frozen, concurrency=2, side_by_side=side_by_side)
    with pytest.raises(Interrupted) as caught:
        train_together(
            members("parts", stop_at=7), frozen, concurrency=2, side_by_side=side_by_side
        )
    assert caught.value.code == 143
    # Member 2 had waited; then it starts while the others go on.
    results = train_together(members("parts"), frozen, concurrency=2, side_by_side=side_by_side)
    for result in results:
        assert result.step == 12
        assert_same_run(tmp_path / "parts" / result.name, tmp_path / "whole" / result.name)
    # Once more, all have ended: nothing is trained, and the results are those in the folders.
    again = train_together(
        members("parts", stop_at=0), frozen, concurrency=2, side_by_side=side_by_side
    )
    assert [result.best.score for result in again] == [result.best.score for result in results]
    assert [result.ended for result in again] == [result.ended for result in results]


def test_members_continue_to_more_steps(tmp_path, frozen):
    def members(kind, steps):
        options = dataclasses.replace(OPTIONS, train_steps=steps)
        return [
            make_member(tmp_path / kind / f"m{seed}", options=options, seed=seed)
            for seed in range(2)
        ]

    train_together(members("parts", 6), frozen, concurrency=2, side_by_side=False)
    results = train_together(members("parts", 12), frozen, concurrency=2, side_by_side=False)
    expected = train_together(members("whole", 12), frozen, concurrency=2, side_by_side=False)
    for result, longer in zip(results, expected, strict=True):
        assert (result.step, result.best) == (12, longer.best)
        assert jax.tree.all(jax.tree.map(np.array_equal, result.trained, longer.trained))


@SIDE_BY_SIDE_OR_NOT
def test_a_member_that_diverges_stops_no_other(tmp_path, frozen, capsys, side_by_side):
    members = [
        make_member(tmp_path / "good"),
        make_member(tmp_path / "bad", rate=linear_warmup(float("inf"), 6)),
    ]
    good, bad = train_together(members, frozen, side_by_side=side_by_side)
    assert good.ended == "trained to its last step"
    assert bad.ended == "diverged at step 1"
    assert np.isfinite(load_prompt(tmp_path / "bad" / "prompt_best.npy")[0]).all()
    assert "bad: Training diverged: the update norm is inf at step 1" in capsys.readouterr().err
    with pytest.raises(UserError, match="All members diverged; the first, bad, diverged at step 1"):
        train_together(members[1:], frozen, side_by_side=side_by_side)


@SIDE_BY_SIDE_OR_NOT
def test_halving_drops_the_worst(tmp_path, frozen, capsys, side_by_side):
    scores = {"low": 0.2, "fair": 0.5, "good": 0.7, "none": float("nan")}
    members = [make_member(tmp_path / name) for name in scores]

    def evaluate(members, numbers):
        return [Evaluation(metrics={}, score=scores[member.name]) for member in members]

    arguments = {"evaluate": evaluate, "halving": Halving(), "concurrency": 3}
    results = {
        result.name: result
        for result in train_together(members, frozen, **arguments, side_by_side=side_by_side)
    }
    assert {name: result.step for name, result in results.items()} == {
        "low": 3, "none": 3, "fair": 6, "good": 12
    }  # fmt: skip
    assert results["low"].ended.startswith("dropped at step 3 (")
    assert "rank 2 of 2; cut-off" in results["fair"].ended
    assert "none dropped at step 3" in capsys.readouterr().err
    again = train_together(members, frozen, **arguments, side_by_side=side_by_side)
    assert [result.ended for result in again] == [result.ended for result in results.values()]


def test_rungs():
    steps = Halving().steps(members=8, train_steps=800, eval_every=10)
    assert steps == [100, 200, 400]
    assert Halving().steps(members=1, train_steps=800, eval_every=10) == []
    assert Halving().steps(members=8, train_steps=30, eval_every=10) == [10, 20]
    assert [Halving().kept(members) for members in (9, 5, 3, 2)] == [5, 3, 2, 1]
    assert Halving(keep=0.99).kept(3) == 2
    with pytest.raises(UserError, match="The rung 15 must be a multiple of eval_every"):
        Halving(rungs=[15]).steps(members=8, train_steps=800, eval_every=10)
    with pytest.raises(UserError, match="between 0 and 1"):
        Halving(keep=1.0)


def test_of_equal_scores_the_sooner_is_better():
    rows = [
        {"step": 0, "eval/score": float("nan")},
        {"step": 2, "eval/score": 0.5},
        {"step": 3, "loss": 1.0},
        {"step": 4, "eval/score": 0.5},
        {"step": 6, "eval/score": 0.9},
    ]
    assert best_until(rows, 4) == (0.5, 2)
    order = ranked({"x": (float("nan"), 0), "a": (0.5, 4), "b": (0.5, 2), "c": (0.7, 9)})
    assert order == ["c", "b", "a", "x"]


def test_groups_compute_the_fewest_positions():
    assert program_sizes(16) == (1, 2, 4, 8, 16)
    assert program_sizes(6) == (1, 2, 3, 6)
    # Alike lengths share a program; one that is far shorter has its own.
    assert groups_by_length([200, 200, 200, 200], (1, 2, 4), 100) == [[0, 1, 2, 3]]
    assert groups_by_length([900, 40, 900, 40], (1, 2, 4), 10) == [[0, 2], [1, 3]]
    # Three in a program of four cost as much as four; two programs cost a call more.
    assert groups_by_length([16, 8, 8], (1, 2, 4), 10) == [[0, 1, 2]]
    assert groups_by_length([480, 400, 400], (1, 2, 4), 100) == [[0], [1, 2]]


def test_what_can_not_be_one_population(tmp_path, frozen):
    member = make_member(tmp_path / "a")
    other = dataclasses.replace(OPTIONS, accumulation_steps=2)
    with pytest.raises(UserError, match="accumulation_steps is 2 for b and 1 for a"):
        train_together([member, dataclasses.replace(member, name="b", options=other)], frozen)
    with pytest.raises(UserError, match="concurrency is 0; it must be at least 1"):
        train_together([member], frozen, concurrency=0)
