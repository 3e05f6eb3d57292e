import dataclasses
import functools
import gzip
import json
import re
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.training import loop
from prompt_tuning.training.flops import matmul_flops
from prompt_tuning.training.monitoring import Monitoring
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.signals import Interrupted
from prompt_tuning.training.startup import PARTS, Startup
from prompt_tuning.training.step import TrainState

SHORT = TrainOptions(train_steps=12, seed=3, log_every=5, eval_every=4, checkpoint_every=6)


@pytest.fixture
def run(tiny_run):
    """Runs without dropout, which takes longest to compile."""
    return functools.partial(tiny_run.run, keep=1.0)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scores(*values):
    """An evaluation that finds these scores, one after the other."""
    remaining = iter(values)

    def evaluate(trained):
        score = next(remaining)
        return Evaluation(metrics={"accuracy": score}, score=score)

    return evaluate


def test_a_run_and_its_folder(run, tmp_path):
    result = run(tmp_path, options=SHORT)
    assert (result.step, result.stopped_early) == (12, False)

    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [5, 10, 12]
    assert [row["step"] for row in rows if "eval/score" in row] == [0, 4, 8, 12]
    by_step = {row["step"]: row["eval/score"] for row in rows if "eval/score" in row}
    assert max(by_step.values()) == by_step[result.best.step] == result.best.score
    assert by_step[result.best.step] > by_step[0]

    names = {path.name for path in tmp_path.iterdir()}
    assert {"settings.json", "config.gin", "versions.json", "predictions", "checkpoints"} <= names
    assert (tmp_path / "config.gin").read_text() == "# tiny\n"
    assert json.loads((tmp_path / "versions.json").read_text())["packages"]["jax"]
    assert len(list((tmp_path / "predictions").iterdir())) == 4

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["task"] == "copy"
    assert summary["trained_parameters"] == 2 * 16
    assert summary["frozen_parameters"] == 2 * 48 * 16
    assert summary["best_step"] == result.best.step
    assert summary["metrics"] == {"nats": result.best.score}
    assert summary["examples_per_second"] > 0
    assert summary["wall_seconds"] > 0


def test_the_saved_prompt_has_the_best_score(run, tiny_run, tmp_path):
    result = run(tmp_path, options=SHORT)
    prompt, metadata = load_prompt(tmp_path / "prompt_best.safetensors")
    assert (metadata.step, metadata.score) == (result.best.step, result.best.score)
    assert tiny_run.score({"prompt": jnp.asarray(prompt)}) == result.best.score


def test_a_row_is_the_mean_over_its_window(run, tmp_path):
    every = dataclasses.replace(SHORT, log_every=1)
    single = [row["loss"] for row in run_rows(run, tmp_path / "a", every) if "loss" in row]
    windows = [row["loss"] for row in run_rows(run, tmp_path / "b", SHORT) if "loss" in row]
    np.testing.assert_allclose(
        windows, [np.mean(single[:5]), np.mean(single[5:10]), np.mean(single[10:])], rtol=1e-6
    )


def run_rows(run, folder, options):
    run(folder, options=options)
    return rows_of(folder)


def test_arguments_are_left_as_they_were(run, tiny_run, tmp_path):
    trained = {"prompt": jnp.ones((2, 16))}
    frozen = tiny_run.make_frozen()
    before = jax.tree.map(np.array, frozen)
    run(tmp_path, options=SHORT, trained=trained, frozen=frozen)
    jax.tree.map(np.testing.assert_array_equal, frozen, before)
    np.testing.assert_array_equal(trained["prompt"], 1.0)


def test_checkpoints_hold_no_frozen_weights(run, tiny_run, tmp_path):
    frozen = {**tiny_run.make_frozen(), "ballast": jax.random.normal(jax.random.key(0), (10**6,))}
    run(tmp_path, options=SHORT, frozen=frozen)
    files = [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 50_000


def test_early_stopping_keeps_the_best_prompt(run, tmp_path):
    saved = []
    arguments = {
        "options": dataclasses.replace(SHORT, train_steps=40, patience=2),
        "save_best": lambda trained, step, score: saved.append((step, score)),
    }
    result = run(tmp_path, evaluate=scores(0.5, 0.6, 0.6, float("nan"), 0.9), **arguments)
    assert result.stopped_early
    assert (result.step, result.best.step, result.best.score) == (12, 4, 0.6)
    assert saved == [(0, 0.5), (4, 0.6)]
    assert json.loads((tmp_path / "summary.json").read_text())["stopped_early"]
    # It stays stopped: the evaluation would fail if it were called once more.
    again = run(tmp_path, evaluate=scores(), **arguments)
    assert (again.step, again.best) == (12, result.best)


@pytest.mark.parametrize("bad_step", [1, 9])
def test_a_nan_loss_stops_the_run_and_names_the_step(run, tiny_run, tmp_path, bad_step):
    def batches(step):
        batch = tiny_run.make_batch(step)
        if step == bad_step - 1:
            batch["decoder_loss_weights"][0, 0] = np.nan
        return batch

    with pytest.raises(UserError, match=rf"the loss is nan at step {bad_step}\.") as caught:
        run(tmp_path, options=SHORT, batches=batches)
    assert "\n" not in str(caught.value)
    prompt, _ = load_prompt(tmp_path / "prompt_best.npy")
    assert np.isfinite(prompt).all()
    kept = {1: "prompt_best of step 0", 9: "and the checkpoint of step 6"}[bad_step]
    assert kept in str(caught.value)
    assert not (tmp_path / "summary.json").exists()
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert steps == {1: [], 9: [6]}[bad_step]


def test_an_infinite_update_stops_the_run_too(run, tmp_path):
    rate = lambda count: jnp.where(count == 11, jnp.inf, 0.1)  # noqa: E731 - a schedule
    with pytest.raises(UserError, match="the update norm is inf at step 12"):
        run(tmp_path, options=SHORT, optimizer=adafactor(rate))
    assert not (tmp_path / "checkpoints" / "12").exists()


def test_a_signal_saves_at_the_next_step(run, tiny_run, tmp_path):
    def batches(step):
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        return tiny_run.make_batch(step)

    before = signal.getsignal(signal.SIGTERM)
    # The step is that in which the signal comes only if its batch isn't made ahead of it.
    options = dataclasses.replace(SHORT, prefetch_batches=0)
    with pytest.raises(Interrupted) as caught:
        run(tmp_path, options=options, batches=batches)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tmp_path / "checkpoints" / "7").is_dir()
    result = run(tmp_path, options=SHORT)
    assert result.step == 12
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == [5, 10, 12]


@pytest.mark.parametrize("stopped_at", [None, 3])
def test_more_steps_equal_a_longer_run_bit_for_bit(run, tiny_run, tmp_path, capsys, stopped_at):
    """Of a complete run, and of one that was stopped before its end."""
    short, long = (dataclasses.replace(SHORT, train_steps=steps) for steps in (4, 12))
    expected = run(tmp_path / "whole", options=long)

    def stopping(step):
        if step == stopped_at:
            signal.raise_signal(signal.SIGTERM)
        return tiny_run.make_batch(step)

    if stopped_at is None:
        run(tmp_path / "parts", options=short)
    else:
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", options=short, batches=stopping)
    result = run(tmp_path / "parts", options=long)
    assert result.best == expected.best
    np.testing.assert_array_equal(result.trained["prompt"], expected.trained["prompt"])
    evaluated = [
        [
            (row["step"], row["eval/score"])
            for row in rows_of(tmp_path / name)
            if "eval/score" in row
        ]
        for name in ("parts", "whole")
    ]
    assert evaluated[0] == evaluated[1]
    assert "was the last one" not in capsys.readouterr().err
    run(tmp_path / "whole", options=long)
    assert "complete (12 steps). Give more TRAIN_STEPS to continue" in capsys.readouterr().err


def test_an_evaluation_of_the_end_that_a_longer_run_does_not_make(run, tmp_path, capsys):
    for steps in (6, 8):
        run(tmp_path, options=dataclasses.replace(SHORT, train_steps=steps))
    assert (
        "Resuming from the checkpoint of step 6. Step 6 was the last one and so was evaluated"
        in capsys.readouterr().err
    )


def test_without_evaluation(run, tmp_path):
    result = run(tmp_path, options=SHORT, evaluate=None, save_best=None)
    assert result.best.step is None
    assert json.loads((tmp_path / "summary.json").read_text())["score"] is None


def test_a_batch_that_can_not_be_cut(run, tmp_path):
    options = dataclasses.replace(SHORT, accumulation_steps=3)
    with pytest.raises(UserError, match="4 examples can't be split into 3 equal microbatches"):
        run(tmp_path, options=options)


@pytest.mark.parametrize("name", ["train_steps", "eval_every", "accumulation_steps", "patience"])
def test_counts_are_positive(name):
    with pytest.raises(UserError, match=f"({name.upper()}|train.{name}) is 0"):
        TrainOptions(**{name: 0})


def test_steps_overlap(run, tiny_run, tmp_path):
    """The loop asks for the next batches before it has waited for the numbers of this one."""
    waited = []
    train_rows = []

    def batches(step):
        train_rows.append(len(rows_of(tmp_path)) if (tmp_path / "metrics.jsonl").exists() else 0)
        waited.append(step)
        return tiny_run.make_batch(step)

    options = dataclasses.replace(
        SHORT, log_every=1, eval_every=100, checkpoint_every=100, prefetch_batches=0
    )
    run(tmp_path, options=options, batches=batches, evaluate=None, save_best=None)
    # Rows written when batch i is asked for: two steps behind.
    assert train_rows == [max(0, step - 2) for step in waited]


def test_run_folder_is_that_of_its_settings(run, tmp_path):
    run(tmp_path, options=SHORT)
    settings = {"run": "tiny", "LEARNING_RATE": 0.3}
    with pytest.raises(UserError, match="LEARNING_RATE is not set there, 0.3 now"):
        RunFolder.open(tmp_path, settings=settings, config_text="")
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.open(tmp_path, settings=settings, config_text="", overwrite=True)
    assert (tmp_path / "notes.txt").exists()
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not any((tmp_path / "checkpoints").iterdir())


def test_no_step_moves_anything_between_host_and_device(run, tmp_path, monkeypatch):
    """Batches are put on the device ahead of the step, and its numbers are fetched after it."""
    make = loop.make_train_step

    def make_guarded(*arguments):
        train_step = make(*arguments)

        def guarded(*arguments):
            with jax.transfer_guard("disallow"):
                return train_step(*arguments)

        return guarded

    with (
        jax.transfer_guard("disallow"),
        pytest.raises(Exception, match="Disallowed host-to-device transfer"),
    ):
        jax.jit(jnp.negative)(np.ones(3))
    monkeypatch.setattr(loop, "make_train_step", make_guarded)
    assert run(tmp_path, options=SHORT).step == 12


def test_rows_tell_what_was_measured(run, tmp_path):
    options = dataclasses.replace(SHORT, eval_every=100)
    startup = Startup(started=time.time())
    run(tmp_path, options=options, monitoring=Monitoring(startup=startup, peak_flops=1e9))
    rows = [row for row in rows_of(tmp_path) if "loss" in row]
    assert [row["compiled_programs"] > 0 for row in rows] == [True, False, False]
    assert all(0 <= row["input_wait"] < 1 and row["mfu"] > 0 for row in rows)
    parts = {name.partition("/")[2]: rows[0][name] for name in rows[0] if "startup/" in name}
    assert parts["total"] > 0 and set(parts) == {"total", *PARTS}
    assert not any("startup/total" in row for row in rows[1:]), "once a process"

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["startup"] == parts
    assert summary["compile"]["programs"] >= 2
    assert summary["mfu"] == sorted(row["mfu"] for row in rows)[1]


def test_mfu_is_of_the_products_that_the_step_makes(run, tiny_run, tmp_path):
    run(tmp_path, options=SHORT, monitoring=Monitoring(peak_flops=1e9))
    rows = [row for row in rows_of(tmp_path) if "loss" in row]
    train_step = loop.make_train_step(functools.partial(tiny_run.loss_fn, keep=1.0), adafactor(0.1))
    state = TrainState.create({"prompt": jnp.zeros((2, 16))}, adafactor(0.1))
    batch, key = tiny_run.make_batch(0), jax.random.key(0)
    flops = matmul_flops(train_step.trace(state, tiny_run.make_frozen(), batch, key).jaxpr)
    examples = len(batch["decoder_loss_weights"])
    for row in rows:
        steps_per_second = row["examples_per_second"] / examples
        assert row["mfu"] == pytest.approx(flops * steps_per_second / 1e9, rel=1e-3)


def test_a_profile_is_recorded_and_its_place_told(run, tmp_path, capsys):
    # Without evaluation: a trace of nothing else is the smaller.
    run(
        tmp_path,
        options=SHORT,
        evaluate=None,
        save_best=None,
        monitoring=Monitoring(profile_steps=3),
    )
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "Recorded" in line]
    assert told.startswith("Recorded steps 6 to 8: open ")
    trace = re.search(r"open (\S+) at", told)[1]
    events = json.loads(gzip.decompress(Path(trace).read_bytes()))["traceEvents"]
    steps = {str(event.get("args", {}).get("step_num")) for event in events}
    assert {"5", "6", "7"} <= steps and not {"4", "8"} & steps
