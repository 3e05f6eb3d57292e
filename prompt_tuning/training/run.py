"""A run between its steps: its state, and all that it reads and writes.

Who makes the steps tells it of each: `loop.py` one run's, `population.py` those of many at once.
"""

import collections
import dataclasses
import io
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from prompt_tuning.checkpoints.manager import CheckpointManager
from prompt_tuning.errors import UserError
from prompt_tuning.models.quantization import count_parameters
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
from prompt_tuning.training.monitoring import Monitor
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.progress import Progress
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.screen import RunScreen, Screen
from prompt_tuning.training.step import StepMetrics, TrainState

STEPS_IN_FLIGHT = 2
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


class Diverged(UserError):
    """A loss, a gradient or an update is NaN or infinite."""


class _InFlight(NamedTuple):
    """A step that has been started, and its numbers, which may still be on their way."""

    step: int
    flops: int
    metrics: StepMetrics
    examples: Array
    tokens: Array
    signal_number: Array | int


class Run:
    """What a run is between its steps.

    It is told of each in turn: `started_step` (or `started_step` without numbers, and `took_step`
    when they are there), `record_evaluation` where `evaluation_due`, `end_step`; and at the end
    `close`. Of several processes that make a run together, the first alone writes.
    """

    def __init__(
        self,
        *,
        options: TrainOptions,
        folder: RunFolder,
        checkpoints: CheckpointManager,
        state: TrainState,
        frozen_parameters: int,
        save_best: Callable[[Any, int, float], None] | None,
        screen: RunScreen | None = None,
        monitor: Monitor | None = None,
    ):
        """Goes on from the newest checkpoint, or starts with `state` if there is none."""
        self._started = time.monotonic()
        self.options, self.folder, self._checkpoints = options, folder, checkpoints
        self._frozen_parameters, self._save_best = frozen_parameters, save_best
        self._monitor, self._writes = monitor, folder.is_written_here
        self.key = stream_key(options.seed, "train_step")

        restored = checkpoints.restore_newest(state)
        if restored is None:
            self.state, self.step, self._progress = state, 0, Progress()
        else:
            self.state, self.step = restored.state, restored.step
            self._progress = Progress.from_json(restored.progress)
        self._first_step = self.step
        self._seconds_before = self._progress.seconds

        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self.voted_signal = 0
        self._start_timing()
        self._fields_to_add: Row = {}
        self._metrics_file = None
        self._screen = screen or Screen(
            self.step, options.train_steps, None if self._writes else _nowhere()
        )
        self._writers: list[Writer] = [self._screen]
        if self._writes:
            self._metrics_file = MetricsFile(folder.metrics, self._progress.metrics_offset)
            self._writers.append(self._metrics_file)
            if options.tensorboard:
                self._writers.append(TensorBoardFile(folder.tensorboard, self.step))
            if options.wandb_project:
                self._writers.append(WandbRun(options.wandb_project, folder))
        if restored is not None:
            self.line(self._resumed_line())

    @property
    def steps_made(self) -> int:
        """Steps made by this process."""
        return self.step - self._first_step

    @property
    def best(self) -> Best:
        """The best evaluation so far."""
        return self._progress.best

    @property
    def ended(self) -> bool:
        """Whether the last step has been made, or patience has run out."""
        return self.step >= self.options.train_steps or self.best.should_stop(self.options.patience)

    @property
    def evaluation_due(self) -> bool:
        """Whether the development set is evaluated after the step just made."""
        return self.step % self.options.eval_every == 0 or self.step == self.options.train_steps

    @property
    def checkpoint_due(self) -> bool:
        """Whether `end_step` will save a checkpoint."""
        return self.ended or self.step % self.options.checkpoint_every == 0

    def line(self, text: str) -> None:
        """Shows a line on the screen."""
        self._screen.line(text)

    def add_to_next_row(self, fields: Row) -> None:
        """Has the next row of losses tell these fields too."""
        self._fields_to_add = {**self._fields_to_add, **fields}

    def wait(self) -> None:
        """Returns once every checkpoint is on disk."""
        self._checkpoints.wait()

    def started_step(
        self,
        state: TrainState,
        metrics: StepMetrics | None = None,
        examples: Array | None = None,
        tokens: Array | None = None,
        *,
        flops: int = 0,
        signal_number: Array | int = 0,
    ) -> None:
        """Takes the state after a step just started, and looks at the numbers of an earlier one.

        They may all still be on their way. Without metrics, `took_step` is called with them later.

        Args:
          state: what the step returns, like `metrics`.
          metrics: see `make_train_step`.
          examples: of the batch.
          tokens: of the batch.
          flops: operations of the step, for the monitor.
          signal_number: of a vote on stopping; `voted_signal` is the greatest once it is there.
        """
        self.state = state
        self.step += 1
        if metrics is not None:
            assert examples is not None and tokens is not None
            self._in_flight.append(
                _InFlight(self.step, flops, metrics, examples, tokens, signal_number)
            )
            if len(self._in_flight) > STEPS_IN_FLIGHT:
                self._take_one()
        self._screen.advance()

    def took_step(self, step: int, metrics: Mapping[str, Any], examples: Any, tokens: Any) -> None:
        """Adds the numbers of a step to the window. Raises Diverged if one isn't finite."""
        numbers = {name: float(value) for name, value in metrics.items()}
        for name in ("loss", "gradient_norm", "update_norm"):
            if not math.isfinite(numbers[name]):
                self._raise_diverged(step, name.replace("_", " "), numbers[name])
        self._progress.add_step(numbers)
        self._counts += [examples, tokens]
        if step % self.options.log_every == 0:
            self._write_window(step)

    def take_all(self) -> None:
        """Waits for every step in flight."""
        while self._in_flight:
            self._take_one()

    def record_evaluation(self, evaluation: Evaluation, seconds: float) -> None:
        """Records what the development set says about the state; it took so many seconds."""
        step, score = self.step, float(evaluation.score)
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
            self.folder.write_predictions(step, evaluation.predictions)
        # Before the checkpoint that will say so.
        if best.step == step and self._save_best is not None and self._writes:
            self._save_best(self.state.trained, step, score)
        self._progress.best = best
        self._timed_from += seconds

    def end_step(self, *, save: bool = False) -> None:
        """Ends a step, whose evaluation has been recorded; saves a checkpoint if asked or due."""
        if self.ended:
            self.take_all()
            self._write_window(self.step)
        if save or self.checkpoint_due:
            self._save_checkpoint()

    def result(self) -> TrainResult:
        """How it stands."""
        return TrainResult(
            trained=self.state.trained,
            step=self.step,
            best=self.best,
            stopped_early=self.step < self.options.train_steps,
        )

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers:
            writer.close()

    def write_summary(self, facts: Mapping[str, Any]) -> None:
        """Writes `summary.json`, unless nothing was done since it was."""
        if self._writes and (self.steps_made or not self.folder.summary.exists()):
            self.folder.write_json("summary.json", self._summary(facts))

    def _summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be known of an ended run at a glance.

        The speed is the median over the rows of losses, which neither compilation nor
        evaluation weighs on.
        """
        best = self._progress.best
        rows = read_rows(self.folder.metrics)
        return {
            **facts,
            "score": best.score,
            "metrics": best.metrics,
            "best_step": best.step,
            "steps": self.step,
            "stopped_early": self.step < self.options.train_steps,
            "trained_parameters": count_parameters(self.state.trained),
            "frozen_parameters": self._frozen_parameters,
            "examples_per_second": _median(rows, "examples_per_second"),
            "mfu": _median(rows, "mfu"),
            "wall_seconds": self._seconds(),
            **({} if self._monitor is None else self._monitor.summary()),
        }

    def _resumed_line(self) -> str:
        """What is said of a run that a checkpoint holds."""
        if self.step >= self.options.train_steps:
            return (
                f"This run is complete ({self.step:,} steps). Give more TRAIN_STEPS to continue "
                "it, or --overwrite to retrain."
            )
        if self.ended:
            return (
                f"This run is complete: it stopped early, at step {self.step:,}. Use --overwrite "
                "to retrain."
            )
        line = f"Resuming from the checkpoint of step {self.step:,}."
        if self._writes and not self.evaluation_due and self._was_evaluated():
            line += (
                f" Step {self.step:,} was the last one and so was evaluated; a longer run without "
                "a break may have another best step."
            )
        return line

    def _was_evaluated(self) -> bool:
        rows = read_rows(self.folder.metrics)
        return any(row["step"] == self.step and "eval/score" in row for row in rows)

    def _take_one(self) -> None:
        """Waits for the oldest step in flight and takes its numbers."""
        step, flops, *numbers = self._in_flight.popleft()
        *numbers, signal_number = jax.device_get(numbers)
        self.voted_signal = max(self.voted_signal, int(signal_number))
        if self._monitor is not None:
            self._monitor.count_step(flops)
        self.took_step(step, *numbers)

    def _write_window(self, step: int) -> None:
        """Writes the row of losses since the last one, if there was a step since."""
        means = self._progress.end_window()
        if means is not None:
            seconds = time.monotonic() - self._timed_from
            examples, tokens = self._counts / seconds
            speed = {"examples_per_second": float(examples), "tokens_per_second": float(tokens)}
            measured = {} if self._monitor is None else self._monitor.end_window(seconds)
            self._write({"step": step, **means, **speed, **measured, **self._fields_to_add})
            self._fields_to_add = {}
        self._start_timing()

    def _start_timing(self) -> None:
        """Starts counting what this process does for the speed in the next row."""
        self._timed_from = time.monotonic()
        self._counts = np.zeros(2)

    def _save_checkpoint(self) -> None:
        self.take_all()
        if self._metrics_file is not None:
            self._progress.metrics_offset = self._metrics_file.sync()
        self._progress.seconds = self._seconds()
        self._checkpoints.save(self.step, self.state, self._progress.to_json())

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
        if best.step is not None and self._save_best is not None:
            kept.append(f"prompt_best of step {best.step} (score {best.score:.4f})")
        # The loss of step n is that of the numbers after step n - 1, which are in doubt.
        checkpoints = [kept_step for kept_step in self._checkpoints.steps() if kept_step < step - 1]
        if checkpoints:
            kept.append(f"the checkpoint of step {checkpoints[-1]}")
        raise Diverged(
            f"Training diverged: the {name} is {value} at step {step}. "
            f"{self.folder.path} keeps {' and '.join(kept) or 'no prompt yet'}. "
            "Lower LEARNING_RATE, and give another MODEL_DIR or --overwrite."
        )


def _median(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return statistics.median(values) if values else None


def _nowhere() -> io.TextIOWrapper:
    """Where a process writes what another one of the same run shows."""
    return open(os.devnull, "w")
