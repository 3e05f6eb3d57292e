"""The training loop: steps, evaluations, checkpoints, and the record of them.

    for step: batch -> train_step -> numbers, a few steps late
              now and then: evaluate, keep the best prompt, save a checkpoint

All input and output of training happens here, between pure steps (`step.py`). A run's result is
a function of its settings alone: batches and random keys follow from the seed and the step, and
a checkpoint holds the rest, so that a run which was killed ends exactly as one that was not.
"""

import collections
import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from prompt_tuning.checkpoints.manager import CheckpointManager
from prompt_tuning.errors import UserError
from prompt_tuning.training.early_stopping import Best
from prompt_tuning.training.keys import stream_key
from prompt_tuning.training.logging import (
    MetricsFile,
    Row,
    TensorBoardFile,
    WandbRun,
    Writer,
    read_rows,
)
from prompt_tuning.training.monitoring import Monitor, Monitoring
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.prefetch import Prefetcher
from prompt_tuning.training.profiling import Profile
from prompt_tuning.training.progress import Progress
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.screen import Screen
from prompt_tuning.training.signals import Interrupted, StopRequest
from prompt_tuning.training.startup import startup_line
from prompt_tuning.training.step import Batch, LossFn, StepMetrics, TrainState, make_train_step

_STEPS_IN_FLIGHT = 2
"""How many steps may be under way before the loop waits: enough to keep a device busy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation on the development set found.

    metrics: by name, such as "accuracy".
    score: the one number, higher being better, that the best prompt is picked by; the mean of
        the task's metrics in the paper.
    predictions: JSON-able rows, one an example.
    """

    metrics: Mapping[str, float]
    score: float
    predictions: Sequence[Mapping[str, Any]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    trained: the numbers after the last step (those of the best evaluation are in the folder).
    step: steps made.
    best: the best evaluation.
    stopped_early: whether patience ran out before the last step.
    """

    trained: Any
    step: int
    best: Best
    stopped_early: bool


def train(
    options: TrainOptions,
    *,
    folder: RunFolder,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    trained: Any,
    frozen: Any,
    batches: Callable[[int], Batch],
    evaluate: Callable[[Any], Evaluation] | None = None,
    save_best: Callable[[Any, int, float], None] | None = None,
    facts: Mapping[str, Any] | None = None,
    monitoring: Monitoring | None = None,
) -> TrainResult:
    """Trains until the last step or until patience runs out; goes on where the folder left off.

    Args:
      options: how long, how often.
      folder: the run's; see `run_folder.py`.
      loss_fn: (trained, frozen, batch, key) -> (sum of losses, sum of weights).
      optimizer: for `trained`.
      trained: its values before the first step; they are copied.
      frozen: what stays as it is; neither changed nor saved.
      batches: step (from 0) -> batch, a pure function, arrays with SeqIO's names. It is called on
        a thread of its own, a few steps ahead.
      evaluate: `trained` -> what the development set says about it. None: nothing is evaluated,
        and no prompt is the best.
      save_best: called with (trained, step, score) at each best evaluation so far.
      facts: what else belongs in the summary, such as the task's name.
      monitoring: what to measure the run against, and whether to record it.

    Raises:
      UserError: a loss, gradient or update is NaN or infinite; something can't be written; every
        checkpoint is damaged; a batch can't be cut into `accumulation_steps`.
      Interrupted: SIGTERM or Ctrl-C came. All is saved; the same call goes on.
    """
    with (
        StopRequest() as stop,
        CheckpointManager(folder.checkpoints, keep=options.keep_checkpoints) as checkpoints,
    ):
        run = _Run(
            options=options,
            folder=folder,
            checkpoints=checkpoints,
            stop=stop,
            train_step=make_train_step(loss_fn, optimizer, options.accumulation_steps),
            state=TrainState.create(jax.tree.map(jnp.array, trained), optimizer),
            frozen=frozen,
            batches=batches,
            evaluate=evaluate,
            save_best=save_best,
            monitoring=monitoring or Monitoring(),
        )
        try:
            result = run.go()
        finally:
            run.close()
    if run.steps_made or not folder.summary.exists():
        folder.write_json("summary.json", run.summary(facts or {}))
    return result


class _InFlight(NamedTuple):
    """A step that has been started, and its numbers, which may still be on their way."""

    step: int
    flops: int
    metrics: StepMetrics
    examples: Array
    tokens: Array


class _Run:
    """The loop's state and its input and output."""

    def __init__(
        self, *, options, folder, checkpoints, stop, train_step, state, frozen, batches,
        evaluate, save_best, monitoring,
    ):  # fmt: skip
        self._started = time.monotonic()
        self._options, self._folder, self._checkpoints = options, folder, checkpoints
        self._stop, self._train_step, self._frozen = stop, train_step, frozen
        self._evaluate, self._save_best = evaluate, save_best
        self._key = stream_key(options.seed, "train_step")

        restored = checkpoints.restore_newest(state)
        if restored is None:
            self._state, self._step, self._progress = state, 0, Progress()
        else:
            self._state, self._step = restored.state, restored.step
            self._progress = Progress.from_json(restored.progress)
        self._first_step = self._step
        self._seconds_before = self._progress.seconds

        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self._startup, self._startup_seconds = monitoring.startup, {}
        self._startup_row: dict[str, float] = {}
        self._monitor = Monitor(monitoring, train_step)
        self._profile = Profile(
            folder.profile, monitoring.profile_steps, first=self._step, end=options.train_steps
        )
        self._start_timing()
        self._metrics_file = MetricsFile(folder.metrics, self._progress.metrics_offset)
        self._screen = Screen(self._step, options.train_steps)
        self._writers: list[Writer] = [self._metrics_file, self._screen]
        if options.tensorboard:
            self._writers.append(TensorBoardFile(folder.tensorboard, self._step))
        if options.wandb_project:
            self._writers.append(WandbRun(options.wandb_project, folder))
        if restored is not None:
            self._screen.line(f"Going on from the checkpoint of step {self._step:,}.")
        # Put on the devices there too, so that a step waits for no transfer.
        self._batches = Prefetcher(
            lambda step: jax.device_put(batches(step)),
            first=self._step,
            end=options.train_steps,
            ahead=options.prefetch_batches,
        )

    @property
    def steps_made(self) -> int:
        """Steps made by this process."""
        return self._step - self._first_step

    def go(self) -> TrainResult:
        """Makes the remaining steps."""
        options = self._options
        if self._step == 0:
            with self._part_of_startup("evaluation"):
                self._run_evaluation()
        while not self._ended():
            self._make_step()
            if self._step % options.eval_every == 0 or self._step == options.train_steps:
                self._run_evaluation()
            ended = self._ended()
            if ended:
                self._take_all()
                self._write_window(self._step)
            # Looked at once: it may come at any moment, and what is raised must be saved.
            signal_number = None if ended else self._stop.signal_number
            if ended or signal_number or self._step % options.checkpoint_every == 0:
                self._save_checkpoint()
            if signal_number:
                self._checkpoints.wait()
                self._screen.line(
                    f"Stopped and saved at step {self._step:,}; the same command goes on from here."
                )
                raise Interrupted(signal_number)
        self._checkpoints.wait()
        return TrainResult(
            trained=self._state.trained,
            step=self._step,
            best=self._progress.best,
            stopped_early=self._step < options.train_steps,
        )

    def close(self) -> None:
        """Closes the files."""
        self._batches.close()
        self._profile.close()
        for writer in self._writers:
            writer.close()

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be known of an ended run at a glance.

        The speed is the median over the rows of losses, which neither compilation nor
        evaluation weighs on.
        """
        best = self._progress.best
        rows = read_rows(self._folder.metrics)
        return {
            **facts,
            "score": best.score,
            "metrics": best.metrics,
            "best_step": best.step,
            "steps": self._step,
            "stopped_early": self._step < self._options.train_steps,
            "trained_parameters": _count_parameters(self._state.trained),
            "frozen_parameters": _count_parameters(self._frozen),
            "examples_per_second": _median(rows, "examples_per_second"),
            "mfu": _median(rows, "mfu"),
            "wall_seconds": self._seconds(),
            "startup": self._startup_seconds or None,
            **self._monitor.summary(),
        }

    def _ended(self) -> bool:
        return self._step >= self._options.train_steps or self._progress.best.should_stop(
            self._options.patience
        )

    def _make_step(self) -> None:
        """Starts a step, then looks at the numbers of one that was started before it."""
        with self._monitor.waiting_for_input(), self._part_of_startup("data"):
            batch = self._batches.next()
        _check_divisible(batch, self._options.accumulation_steps)
        examples, tokens = _count(batch["encoder_input_tokens"], batch["decoder_loss_weights"])
        flops = self._monitor.step_flops(self._state, self._frozen, batch, self._key)
        with self._part_of_startup("step"), self._profile.step(self._step):
            self._state, metrics = self._train_step(self._state, self._frozen, batch, self._key)
            if self._startup is not None:
                jax.block_until_ready(metrics)
        self._step += 1
        self._profile.step_made(self._step, metrics, self._screen.line)
        self._tell_startup()
        self._in_flight.append(_InFlight(self._step, flops, metrics, examples, tokens))
        if len(self._in_flight) > _STEPS_IN_FLIGHT:
            self._take_one()
        self._screen.advance()

    def _part_of_startup(self, name: str) -> AbstractContextManager[object]:
        """Until the first step is done, counts what is done inside as this part of starting."""
        return contextlib.nullcontext() if self._startup is None else self._startup.part(name)

    def _tell_startup(self) -> None:
        """Once the first step is done, tells how long it took to get there."""
        if self._startup is not None:
            self._startup_seconds, self._startup = self._startup.end(), None
            self._screen.line(startup_line(self._startup_seconds))
            self._startup_row = {
                f"startup/{name}": value for name, value in self._startup_seconds.items()
            }

    def _take_one(self) -> None:
        """Waits for the oldest step in flight and adds its numbers to the window."""
        step, flops, *numbers = self._in_flight.popleft()
        metrics, examples, tokens = jax.device_get(numbers)
        metrics = {name: float(value) for name, value in metrics.items()}
        for name in ("loss", "gradient_norm", "update_norm"):
            if not math.isfinite(metrics[name]):
                self._raise_diverged(step, name.replace("_", " "), metrics[name])
        self._progress.add_step(metrics)
        self._counts += [examples, tokens]
        self._monitor.count_step(flops)
        if step % self._options.log_every == 0:
            self._write_window(step)

    def _take_all(self) -> None:
        while self._in_flight:
            self._take_one()

    def _write_window(self, step: int) -> None:
        """Writes the row of losses since the last one, if there was a step since."""
        means = self._progress.end_window()
        if means is not None:
            seconds = time.monotonic() - self._timed_from
            examples, tokens = self._counts / seconds
            speed = {"examples_per_second": float(examples), "tokens_per_second": float(tokens)}
            measured = {**speed, **self._monitor.end_window(seconds), **self._startup_row}
            self._write({"step": step, **means, **measured})
            self._startup_row = {}
        self._start_timing()

    def _start_timing(self) -> None:
        """Starts counting what this process does for the speed in the next row."""
        self._timed_from = time.monotonic()
        self._counts = np.zeros(2)

    def _run_evaluation(self) -> None:
        if self._evaluate is None:
            return
        self._take_all()
        started = time.monotonic()
        evaluation = self._evaluate(self._state.trained)
        step, score = self._step, float(evaluation.score)
        metrics = {name: float(value) for name, value in evaluation.metrics.items()}
        best = self._progress.best.updated(step, score, metrics)
        self._write(
            {
                "step": step,
                **{f"eval/{name}": value for name, value in metrics.items()},
                "eval/score": score,
            }
        )
        if evaluation.predictions:
            self._folder.write_predictions(step, evaluation.predictions)
        # Before the checkpoint that will say so.
        if best.step == step and self._save_best is not None:
            self._save_best(self._state.trained, step, score)
        self._progress.best = best
        self._timed_from += time.monotonic() - started

    def _save_checkpoint(self) -> None:
        self._take_all()
        self._progress.metrics_offset = self._metrics_file.sync()
        self._progress.seconds = self._seconds()
        self._checkpoints.save(self._step, self._state, self._progress.to_json())

    def _write(self, row: Row) -> None:
        row = {**row, "seconds": self._seconds()}
        for writer in self._writers:
            writer.write(row)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _raise_diverged(self, step: int, name: str, value: float) -> None:
        self._checkpoints.wait()
        best = self._progress.best
        kept = []
        if best.step is not None:
            kept.append(f"prompt_best of step {best.step} (score {best.score:.4f})")
        # The loss of step n is that of the numbers after step n - 1, which are in doubt.
        checkpoints = [kept_step for kept_step in self._checkpoints.steps() if kept_step < step - 1]
        if checkpoints:
            kept.append(f"the checkpoint of step {checkpoints[-1]}")
        raise UserError(
            f"Training diverged: the {name} is {value} at step {step}. "
            f"{self._folder.path} keeps {' and '.join(kept) or 'no prompt yet'}. "
            "Lower LEARNING_RATE, and give another MODEL_DIR or --overwrite."
        )


def _check_divisible(batch: Batch, parts: int) -> None:
    examples = len(batch["decoder_loss_weights"])
    if examples % parts:
        raise UserError(
            f"A batch of {examples} examples can't be cut into {parts} equal microbatches; "
            "make BATCH_SIZE a multiple of accumulation_steps."
        )


@jax.jit
def _count(
    inputs: Int[Array, "batch source"], weights: Float[Array, "batch target"]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Examples in a batch, and tokens of inputs and targets together; padding is neither.

    Counted on the device, where a batch that is spread over several stays whole.
    """
    examples = jnp.count_nonzero(jnp.any(weights > 0, axis=-1))
    return examples, jnp.count_nonzero(inputs) + jnp.count_nonzero(weights)


def _median(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return statistics.median(values) if values else None


def _count_parameters(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
