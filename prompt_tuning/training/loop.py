"""The training loop: steps, evaluations, checkpoints, and the record of them.

    for step: batch -> train_step -> numbers, a few steps late
              now and then: evaluate, keep the best prompt, save a checkpoint

All input and output of training happens here, between pure steps (`step.py`). A run's result is
a function of its settings alone: batches and random keys follow from the seed and the step, and
a checkpoint holds the rest, so that a run which was killed ends exactly as one that was not.
"""

import collections
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.progress import Progress
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.screen import RunScreen, Screen
from prompt_tuning.training.signals import Interrupted, StopRequest
from prompt_tuning.training.step import Batch, LossFn, StepMetrics, TrainState, make_train_step

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
) -> TrainResult:
    """Trains until the last step or until patience runs out; goes on where the folder left off.

    Args:
      options: how long, how often.
      folder: the run's; see `run_folder.py`.
      loss_fn: (trained, frozen, batch, key) -> (sum of losses, sum of weights).
      optimizer: for `trained`.
      trained: its values before the first step; they are copied.
      frozen: what stays as it is; neither changed nor saved.
      batches: step (from 0) -> batch, a pure function, arrays with SeqIO's names.
      evaluate: `trained` -> what the development set says about it. None: nothing is evaluated,
        and no prompt is the best.
      save_best: called with (trained, step, score) at each best evaluation so far.
      facts: what else belongs in the summary, such as the task's name.

    Raises:
      UserError: a loss, gradient or update is NaN or infinite; something can't be written; every
        checkpoint is damaged; a batch can't be cut into `accumulation_steps`.
      Interrupted: SIGTERM or Ctrl-C came. All is saved; the same call goes on.
    """
    with (
        StopRequest() as stop,
        CheckpointManager(folder.checkpoints, keep=options.keep_checkpoints) as checkpoints,
    ):
        run = Run(
            options=options,
            folder=folder,
            checkpoints=checkpoints,
            state=TrainState.create(jax.tree.map(jnp.array, trained), optimizer),
            frozen_parameters=count_parameters(frozen),
            save_best=save_best,
        )
        train_step = make_train_step(loss_fn, optimizer, options.accumulation_steps)
        try:
            _make_steps(run, stop, train_step, frozen, batches, evaluate)
        finally:
            run.close()
    run.write_summary(facts or {})
    return run.result()


def _make_steps(
    run: "Run",
    stop: StopRequest,
    train_step: Callable[..., tuple[TrainState, StepMetrics]],
    frozen: Any,
    batches: Callable[[int], Batch],
    evaluate: Callable[[Any], Evaluation] | None,
) -> None:
    """Makes the remaining steps of a run."""

    def run_evaluation() -> None:
        if evaluate is None:
            return
        run.take_all()
        started = time.monotonic()
        evaluation = evaluate(run.state.trained)
        run.record_evaluation(evaluation, time.monotonic() - started)

    if run.step == 0:
        run_evaluation()
    while not run.ended:
        batch = batches(run.step)
        check_divisible(batch, run.options.accumulation_steps)
        counts = _count(batch["encoder_input_tokens"], batch["decoder_loss_weights"])
        state, metrics = train_step(run.state, frozen, batch, run.key)
        run.started_step(state, metrics, *counts)
        if run.evaluation_due:
            run_evaluation()
        # Looked at once: it may come at any moment, and what is raised must be saved.
        signal_number = None if run.ended else stop.signal_number
        run.end_step(save=bool(signal_number))
        if signal_number:
            run.wait()
            run.line(f"Stopped and saved at step {run.step:,}; the same command goes on from here.")
            raise Interrupted(signal_number)
    run.wait()


class _InFlight(NamedTuple):
    """A step that has been started, and its numbers, which may still be on their way."""

    step: int
    metrics: StepMetrics
    examples: Array | int
    tokens: Array | int


class Diverged(UserError):
    """A loss, a gradient or an update is NaN or infinite."""


class Run:
    """What a run is between its steps: its state, and all that it reads and writes.

    Whoever makes the steps, `train` one run's or `population.py` those of many at once, tells it
    of each in turn: `started_step` (or `started_step` without numbers, and `took_step` when they
    are there), `record_evaluation` where `evaluation_due`, `end_step`; and at the end `close`.
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
    ):
        """Goes on from the newest checkpoint, or starts with `state` if there is none."""
        self._started = time.monotonic()
        self.options, self.folder, self._checkpoints = options, folder, checkpoints
        self._frozen_parameters, self._save_best = frozen_parameters, save_best
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
        self._start_timing()
        self._metrics_file = MetricsFile(folder.metrics, self._progress.metrics_offset)
        self._screen = screen or Screen(self.step, options.train_steps)
        self._writers: list[Writer] = [self._metrics_file, self._screen]
        if options.tensorboard:
            self._writers.append(TensorBoardFile(folder.tensorboard, self.step))
        if options.wandb_project:
            self._writers.append(WandbRun(options.wandb_project, folder))
        if restored is not None:
            self.line(f"Going on from the checkpoint of step {self.step:,}.")

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

    def wait(self) -> None:
        """Returns once every checkpoint is on disk."""
        self._checkpoints.wait()

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
        if self.steps_made or not self.folder.summary.exists():
            self.folder.write_json("summary.json", self._summary(facts))

    def _summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be known of an ended run at a glance.

        The speed is the median over the rows of losses, which neither compilation nor
        evaluation weighs on.
        """
        best = self._progress.best
        rates = [
            row["examples_per_second"]
            for row in read_rows(self.folder.metrics)
            if "examples_per_second" in row
        ]
        return {
            **facts,
            "score": best.score,
            "metrics": best.metrics,
            "best_step": best.step,
            "steps": self.step,
            "stopped_early": self.step < self.options.train_steps,
            "trained_parameters": count_parameters(self.state.trained),
            "frozen_parameters": self._frozen_parameters,
            "examples_per_second": statistics.median(rates) if rates else None,
            "wall_seconds": self._seconds(),
        }

    def started_step(
        self,
        state: TrainState,
        metrics: StepMetrics | None = None,
        examples: Array | int = 0,
        tokens: Array | int = 0,
    ) -> None:
        """Takes the state after a step just started, and looks at the numbers of an earlier one.

        They may all still be on their way. Without metrics, `took_step` is called with them later.
        """
        self.state = state
        self.step += 1
        if metrics is not None:
            self._in_flight.append(_InFlight(self.step, metrics, examples, tokens))
            if len(self._in_flight) > STEPS_IN_FLIGHT:
                self._take_one()
        self._screen.advance()

    def _take_one(self) -> None:
        """Waits for the oldest step in flight and takes its numbers."""
        step, *numbers = self._in_flight.popleft()
        self.took_step(step, *jax.device_get(numbers))

    def take_all(self) -> None:
        """Waits for every step in flight."""
        while self._in_flight:
            self._take_one()

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

    def _write_window(self, step: int) -> None:
        """Writes the row of losses since the last one, if there was a step since."""
        means = self._progress.end_window()
        if means is not None:
            examples, tokens = self._counts / (time.monotonic() - self._timed_from)
            speed = {"examples_per_second": float(examples), "tokens_per_second": float(tokens)}
            self._write({"step": step, **means, **speed})
        self._start_timing()

    def _start_timing(self) -> None:
        """Starts counting what this process does for the speed in the next row."""
        self._timed_from = time.monotonic()
        self._counts = np.zeros(2)

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
        if best.step == step and self._save_best is not None:
            self._save_best(self.state.trained, step, score)
        self._progress.best = best
        self._timed_from += seconds

    def _save_checkpoint(self) -> None:
        self.take_all()
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
        if best.step is not None:
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


def check_divisible(batch: Batch, parts: int) -> None:
    """Raises UserError if a batch can't be cut into so many equal parts."""
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


def count_parameters(tree: Any) -> int:
    """Returns how many numbers the arrays of a tree hold."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
