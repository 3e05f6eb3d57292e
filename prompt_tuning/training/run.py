"""State and I/O of one training run.

    specification    `Member`
    input            `ActiveRun.batches`, prefetched on a thread
    output           rows of metrics, predictions, the best prompt, checkpoints
    result           `TrainResult`, and the folder's summary.json

`loop.py` runs the steps, of one run or of several that train together.
"""

import collections
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from prompt_tuning.checkpoints.state import CheckpointManager
from prompt_tuning.errors import UserError
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.training.early_stopping import Best
from prompt_tuning.training.inputs import Input, make_input
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
from prompt_tuning.training.optimizers import AnyRate, Optimizer
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.prefetch import Prefetcher
from prompt_tuning.training.progress import Progress
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.screen import RunScreen, Screen
from prompt_tuning.training.step import Batch, LossFn, ProgramKey, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """The specification of a run: its trainable parameters, data, options and folder.

    Attributes:
      name: unique name on the screen and in results; "" for a single run.
      folder: see `run_folder.py`.
      options: training steps and intervals.
      loss_fn: (trained, frozen, batch, key) -> (sum of losses, sum of weights).
      optimizer: for `trained`. Among runs that train together, only those with an `Optimizer`
        share a program.
      trained: the initial trainable parameters; they are copied.
      batches: step (from 0) -> batch of host arrays under SeqIO's names. A pure function, called
        on its own thread, a few steps ahead.
      pad_id: the id of padding in batches.
      save_best: called with (trained, step, score) after each evaluation that is the best so far.
      facts: further fields of the summary, such as the task's name.
    """

    name: str = ""
    folder: RunFolder
    options: TrainOptions
    loss_fn: LossFn
    optimizer: optax.GradientTransformation
    trained: Any
    batches: Callable[[int], Batch]
    pad_id: int = 0
    save_best: Callable[[Any, int, float], None] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def in_population(self) -> bool:
        """Whether it is a member of a population, and not a single run."""
        return bool(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of an evaluation on the development set.

    Attributes:
      metrics: by name, such as "accuracy".
      score: selects the best prompt, higher is better; in the paper, the mean of the task's
        metrics.
      predictions: JSON-serializable rows, one per example.
    """

    metrics: Mapping[str, float]
    score: float
    predictions: Sequence[Mapping[str, Any]] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    Attributes:
      name: the member's.
      step: number of steps made.
      best: the best evaluation.
      ended: the reason, in a few words.
      trained: the trainable parameters after the last step (those of the best evaluation are in
        the folder); None for a member that ended before this process began.
      stopped_early: whether it ended before its last step.
      diverged: whether a loss, a gradient or an update was NaN or infinite.
    """

    name: str
    step: int
    best: Best
    ended: str
    trained: Any
    stopped_early: bool
    diverged: bool = False


class Diverged(UserError):
    """A loss, a gradient or an update is NaN or infinite.

    Attributes:
      step: the step at which this was found.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class ActiveRun:
    """A started run.

    For each step, call in this order: `batches.next`; `start_step`; `record_step` once the metrics
    are fetched, which may be a few steps later; `record_evaluation` if `evaluation_due`;
    `end_step`. At the end, call `close`. If several processes train a run, only the first writes.

    Attributes:
      member: the run's specification.
      state: after the last dispatched step; it may not be computed yet.
      step: number of dispatched steps.
      key: the run's random key.
      program_key: equal for runs that can share a program.
      batches: the `Input`s of the next steps.
      monitor: measures input wait, compilation and MFU.
    """

    def __init__(
        self,
        member: Member,
        *,
        state: TrainState,
        frozen_parameters: int,
        place_batch: Callable[[Batch], Batch],
        peak_flops: float | None,
        screen: RunScreen | None,
    ):
        """Resumes from the newest checkpoint, or starts with `state` if there is none.

        Args:
          member: the run's specification.
          state: before the first step.
          frozen_parameters: number of frozen parameters.
          place_batch: puts a batch on the devices.
          peak_flops: see `Monitoring`.
          screen: its part of a population's screen; None for a single run.
        """
        self._started = time.monotonic()
        self.member, self.options, self.folder = member, member.options, member.folder
        self._frozen_parameters, self._writes = frozen_parameters, self.folder.is_written_here
        self._checkpoints = CheckpointManager(
            self.folder.checkpoints, keep=self.options.keep_checkpoints
        )
        self.key = stream_key(self.options.seed, "train_step")
        if screen is None:
            self.program_key = ProgramKey(member.loss_fn, member.optimizer)
        else:
            self.program_key = ProgramKey.of(member.loss_fn, member.optimizer)
        self._rates = None
        if isinstance(self.program_key.optimizer, AnyRate):
            assert isinstance(member.optimizer, Optimizer)
            self._rates = member.optimizer.rates(self.options.train_steps)

        restored = self._checkpoints.restore_newest(state)
        if restored is None:
            self.state, self.step, self._progress = state, 0, Progress()
        else:
            self.state, self.step = restored.state, restored.step
            self._progress = Progress.from_json(restored.progress)
        self._first_step = self.step
        self._seconds_before = self._progress.seconds
        self.monitor = Monitor(peak_flops)
        self._start_timing()
        self._startup: Mapping[str, float] | None = None
        self._fields_to_add: Row = {}
        self._metrics_file = self._tensorboard_file = None
        self._screen = screen or Screen(self.step, self.options.train_steps, shown=self._writes)
        self._writers: list[Writer] = [self._screen]
        if self._writes:
            self._metrics_file = MetricsFile(self.folder.metrics, self._progress.metrics_offset)
            self._writers.append(self._metrics_file)
            if self.options.tensorboard:
                self._tensorboard_file = TensorBoardFile(self.folder.tensorboard, self.step)
                self._writers.append(self._tensorboard_file)
            if self.options.wandb_project:
                self._writers.append(WandbRun(self.options.wandb_project, self.folder))
        if restored is not None:
            self.line(self._resumed_line())

        # Steps dispatched but not yet recorded: (step, input, FLOPs).
        self._under_way: collections.deque[tuple[int, Input, int]] = collections.deque()
        accumulation_steps = self.options.accumulation_steps
        self.batches = Prefetcher(
            # The thread also puts batches on the devices, so that no step waits for the transfer.
            lambda step: make_input(member.batches(step), accumulation_steps, place_batch),
            first=self.step,
            end=self.options.train_steps,
            ahead=self.options.prefetch_batches,
        )

    @functools.cached_property
    def key_data(self) -> np.ndarray:
        """The run's random key as uint32 words."""
        return np.asarray(jax.random.key_data(self.key))

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name

    @property
    def rate(self) -> np.floating | None:
        """The learning rate of the next step; None if the program doesn't take it as an argument.

        After the last step, that step's learning rate.
        """
        return None if self._rates is None else self._rates[min(self.step, len(self._rates) - 1)]

    @property
    def best(self) -> Best:
        """The best evaluation so far."""
        return self._progress.best

    @property
    def ended(self) -> bool:
        """Whether the last step is done, or the run stops early."""
        return self.step >= self.options.train_steps or self.stops_early is not None

    @property
    def stops_early(self) -> str | None:
        """Why the run stops before its last step; None if it doesn't."""
        return self.best.why_stop(self.options.patience, self.options.target_score)

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation follows the current step."""
        return self.step % self.options.eval_every == 0 or self.step == self.options.train_steps

    @property
    def checkpoint_due(self) -> bool:
        """Whether `end_step` will save a checkpoint."""
        return self.ended or self.step % self.options.checkpoint_every == 0

    def line(self, text: str) -> None:
        """Prints a line on the screen."""
        self._screen.line(text)

    def record_startup(self, seconds: Mapping[str, float]) -> None:
        """Adds the durations of the parts of startup to the next row and the summary."""
        self._startup = seconds
        self._fields_to_add = {f"startup/{name}": value for name, value in seconds.items()}

    def wait(self) -> None:
        """Waits until every checkpoint is on disk."""
        self._checkpoints.wait()

    def start_step(self, state: TrainState, step_input: Input, flops: int) -> None:
        """Registers a dispatched step.

        Args:
          state: after the step; it may not be computed yet.
          step_input: the step's input.
          flops: of the step; 0 if not counted.
        """
        self.state = state
        self.step += 1
        self._under_way.append((self.step, step_input, flops))
        self._screen.advance()

    def record_step(self, metrics: Mapping[str, Any]) -> None:
        """Adds the metrics of the oldest dispatched step (`make_train_step`) to the next row.

        Raises:
          Diverged: a metric isn't finite.
        """
        step, step_input, flops = self._under_way.popleft()
        values = {name: float(value) for name, value in metrics.items()}
        for name in ("loss", "gradient_norm", "update_norm"):
            if not math.isfinite(values[name]):
                self._raise_diverged(step, name.replace("_", " "), values[name])
        self._progress.add_step(values)
        self._counts += [step_input.examples, step_input.tokens]
        self.monitor.count_step(flops)
        if step % self.options.log_every == 0:
            self._write_window(step)

    def record_evaluation(self, evaluation: Evaluation, seconds: float) -> None:
        """Records an evaluation of the current state, which took this many seconds."""
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
        # Save the prompt before the checkpoint that records it as best.
        save_best = self.member.save_best
        if best.step == step and save_best is not None and self._writes:
            save_best(self.state.trained, step, score)
        self._progress.best = best
        self._timed_from += seconds

    def end_step(self, *, save: bool = False) -> None:
        """Ends a fully recorded step; saves a checkpoint if requested or due."""
        if self.ended:
            self._write_window(self.step)
        if save or self.checkpoint_due:
            self._save_checkpoint()

    def result(self, ended: str, *, diverged: bool = False) -> TrainResult:
        """Returns the result of the run, which ended for this reason."""
        return TrainResult(
            name=self.name,
            step=self.step,
            best=self.best,
            ended=ended,
            trained=self.state.trained,
            stopped_early=self.step < self.options.train_steps,
            diverged=diverged,
        )

    def close(self) -> None:
        """Stops prefetching batches and closes the files."""
        self.batches.close()
        for writer in self._writers:
            writer.close()
        self._checkpoints.close()

    def write_summary(self, facts: Mapping[str, Any]) -> None:
        """Writes `summary.json`, unless it exists and this process made no step."""
        made_steps = self.step > self._first_step
        if self._writes and (made_steps or not self.folder.summary.exists()):
            best, rows = self._progress.best, read_rows(self.folder.metrics)
            summary = {
                **self.member.facts,
                **facts,
                "startup": self._startup,
                "score": best.score,
                "metrics": best.metrics,
                "best_step": best.step,
                "steps": self.step,
                "stopped_early": self.step < self.options.train_steps,
                "trained_parameters": count_parameters(self.state.trained),
                "frozen_parameters": self._frozen_parameters,
                # Medians, which neither compilation nor evaluation distorts.
                "examples_per_second": _median(rows, "examples_per_second"),
                "mfu": _median(rows, "mfu"),
                "wall_seconds": self._seconds(),
                **self.monitor.summary(),
            }
            self.folder.write_json("summary.json", summary)

    def _resumed_line(self) -> str:
        """Returns the line to print for a run restored from a checkpoint."""
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
        rows = read_rows(self.folder.metrics) if self._writes and not self.evaluation_due else []
        if any(row["step"] == self.step and "eval/score" in row for row in rows):
            line += (
                f" Step {self.step:,} was the last one and so was evaluated; an uninterrupted "
                "longer run may have another best step."
            )
        return line

    def _write_window(self, step: int) -> None:
        """Writes the row of losses since the last row, if any step was made since."""
        means = self._progress.end_window()
        if means is not None:
            seconds = time.monotonic() - self._timed_from
            examples, tokens = self._counts / seconds
            speed = {"examples_per_second": float(examples), "tokens_per_second": float(tokens)}
            measured = self.monitor.end_window(seconds)
            self._write({"step": step, **means, **speed, **measured, **self._fields_to_add})
            self._fields_to_add = {}
        self._start_timing()

    def _start_timing(self) -> None:
        """Starts measuring the speed for the next row."""
        self._timed_from = time.monotonic()
        self._counts = np.zeros(2)

    def _save_checkpoint(self) -> None:
        if self._metrics_file is not None:
            self._progress.metrics_offset = self._metrics_file.sync()
        if self._tensorboard_file is not None:
            self._tensorboard_file.sync()
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
        if best.step is not None and self.member.save_best is not None:
            kept.append(f"prompt_best of step {best.step} (score {best.score:.4f})")
        # The loss of step n is computed with the parameters after step n - 1, which are in doubt.
        checkpoints = [kept_step for kept_step in self._checkpoints.steps() if kept_step < step - 1]
        if checkpoints:
            kept.append(f"the checkpoint of step {checkpoints[-1]}")
        raise Diverged(
            f"Training diverged: the {name} is {value} at step {step}. "
            f"{self.folder.path} keeps {' and '.join(kept) or 'no prompt yet'}. "
            "Lower LEARNING_RATE, and give another MODEL_DIR or --overwrite.",
            step,
        )


def _median(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return statistics.median(values) if values else None
