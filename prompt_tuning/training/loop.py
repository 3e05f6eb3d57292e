"""The training loop: steps, evaluations and checkpoints, one after another.

    for step: batch -> train_step -> numbers, a few steps late
              now and then: evaluate, keep the best prompt, save a checkpoint

All input and output of training happens here and in `run.py`, which keeps the record, between pure
steps (`step.py`). A run's result is a function of its settings alone: batches and random keys
follow from the seed and the step, and a checkpoint holds the rest, so that a run which was killed
ends exactly as one that was not.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Sharding
from jaxtyping import Array, Float, Int

from prompt_tuning.checkpoints.manager import CheckpointManager
from prompt_tuning.errors import UserError
from prompt_tuning.host_memory import check_memory
from prompt_tuning.models.quantization import count_parameters
from prompt_tuning.training.monitoring import Monitor, Monitoring
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.prefetch import Prefetcher
from prompt_tuning.training.profiling import Profile
from prompt_tuning.training.run import Evaluation, Run, TrainResult
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.signals import Interrupted, StopRequest
from prompt_tuning.training.startup import startup_line
from prompt_tuning.training.step import Batch, LossFn, TrainState, make_train_step

Layout = Callable[[TrainState], TrainState]
"""From a state's shapes to how its arrays lie on devices."""

Vote = Callable[[int], Array]
"""Puts a process's signal number, 0 for none, to the vote of all: the greatest of theirs, which may
still be on its way. Every process counts it after the same step, so they stop together."""


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
    replicated: Sharding | None = None,
    layout: Layout | None = None,
    vote: Vote | None = None,
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
      replicated: the layout of an array that each of several devices has whole.
      layout: how the state lies on several devices; `replicated` if None.
      vote: of several processes, by which all of them stop at the same step; see `Vote`. They all
        run this loop, with the same arguments; the first alone writes to the folder.

    Raises:
      UserError: a loss, gradient or update is NaN or infinite; something can't be written; every
        checkpoint is damaged; a batch can't be cut into `accumulation_steps`.
      Interrupted: SIGTERM or Ctrl-C came. All is saved; the same call goes on.
    """
    monitoring = monitoring or Monitoring()
    state_layout: Any = replicated
    if replicated is not None and layout is not None:
        state_layout = layout(
            jax.eval_shape(lambda trained: TrainState.create(trained, optimizer), trained)
        )
    layouts = None if replicated is None else (state_layout, replicated)
    train_step = make_train_step(loss_fn, optimizer, options.accumulation_steps, layouts)
    monitor = Monitor(monitoring, train_step)
    with (
        # Several processes stop together or not at all.
        StopRequest(saving=vote is not None) as stop,
        CheckpointManager(folder.checkpoints, keep=options.keep_checkpoints) as checkpoints,
    ):
        run = Run(
            options=options,
            folder=folder,
            checkpoints=checkpoints,
            state=_first_state(trained, optimizer, state_layout),
            frozen_parameters=count_parameters(frozen),
            save_best=save_best,
            monitor=monitor,
        )
        loop = _Loop(run, stop, train_step, frozen, batches, evaluate, monitoring, monitor, vote)
        try:
            loop.make_steps()
        finally:
            loop.close()
            run.close()
    run.write_summary({**(facts or {}), "startup": loop.startup_seconds})
    return run.result()


def check_divisible(batch: Batch, parts: int) -> None:
    """Checks that a batch can be cut into so many microbatches of one size.

    Raises:
      UserError: it can't.
    """
    examples = len(batch["decoder_loss_weights"])
    if examples % parts:
        raise UserError(
            f"A batch of {examples} examples can't be cut into {parts} equal microbatches; "
            "make BATCH_SIZE a multiple of accumulation_steps."
        )


class _Loop:
    """Makes the remaining steps of a run."""

    def __init__(self, run, stop, train_step, frozen, batches, evaluate, monitoring, monitor, vote):
        self._run, self._stop, self._vote = run, stop, vote
        self._train_step, self._frozen, self._evaluate = train_step, frozen, evaluate
        self._monitor, self._startup = monitor, monitoring.startup
        self.startup_seconds: dict[str, float] | None = None
        end = run.options.train_steps
        self._profile = Profile(
            run.folder.profile, monitoring.profile_steps, first=run.step, end=end
        )
        # Put on the devices there too, so that a step waits for no transfer.
        self._batches = Prefetcher(
            lambda step: _on_devices(batches(step)),
            first=run.step,
            end=end,
            ahead=run.options.prefetch_batches,
        )

    def make_steps(self) -> None:
        run = self._run
        if run.step == 0:
            with self._part_of_startup("evaluation"):
                self._run_evaluation()
        while not run.ended:
            self._make_step()
            if run.evaluation_due:
                self._run_evaluation()
            # Looked at once: it may come at any moment, and what is raised must be saved.
            signal_number = None if run.ended else self._signal_number()
            run.end_step(save=bool(signal_number))
            if signal_number:
                run.wait()
                run.line(
                    f"Stopped and saved at step {run.step:,}; the same command resumes from here."
                )
                raise Interrupted(signal_number)
        run.wait()

    def close(self) -> None:
        self._batches.close()
        self._profile.close()

    def _make_step(self) -> None:
        """Starts a step; the run looks at the numbers of one that was started before it."""
        run, frozen = self._run, self._frozen
        with self._monitor.waiting_for_input(), self._part_of_startup("data"):
            batch = self._batches.next()
        check_divisible(batch, run.options.accumulation_steps)
        counts = _count(batch["encoder_input_tokens"], batch["decoder_loss_weights"])
        flops = self._monitor.step_flops(run.state, frozen, batch, run.key)
        signal_number = self._vote(self._stop.signal_number or 0) if self._vote else 0
        with self._part_of_startup("step"), self._profile.step(run.step):
            check_memory(self._train_step, run.state, frozen, batch, run.key)
            state, metrics = self._train_step(run.state, frozen, batch, run.key)
            if self._startup is not None:
                jax.block_until_ready(metrics)
        self._profile.step_made(run.step + 1, metrics, run.line)
        self._tell_startup()
        run.started_step(state, metrics, *counts, flops=flops, signal_number=signal_number)
        self._stop.begin_saving()

    def _run_evaluation(self) -> None:
        if self._evaluate is None:
            return
        self._run.take_all()
        started = time.monotonic()
        evaluation = self._evaluate(self._run.state.trained)
        self._run.record_evaluation(evaluation, time.monotonic() - started)

    def _signal_number(self) -> int | None:
        """The signal to stop by after this step, the same on every process."""
        if self._vote is None:
            return self._stop.signal_number
        return self._run.voted_signal or None

    def _part_of_startup(self, name: str) -> AbstractContextManager[object]:
        """Until the first step is done, counts what is done inside as this part of starting."""
        return contextlib.nullcontext() if self._startup is None else self._startup.part(name)

    def _tell_startup(self) -> None:
        """Once the first step is done, tells how long it took to get there."""
        if self._startup is not None:
            seconds = self.startup_seconds = self._startup.end()
            self._startup = None
            self._run.line(startup_line(seconds))
            self._run.add_to_next_row({f"startup/{name}": value for name, value in seconds.items()})


def _first_state(trained: Any, optimizer: optax.GradientTransformation, layout: Any) -> TrainState:
    """The state before the first step, in memory of its own."""
    if layout is None:
        return TrainState.create(jax.tree.map(jnp.array, trained), optimizer)

    # In one program: several processes can't make arrays together one operation at a time.
    def create(trained: Any) -> TrainState:
        return TrainState.create(jax.tree.map(jnp.copy, trained), optimizer)

    return jax.jit(create, out_shardings=layout)(trained)


def _on_devices(batch: Batch) -> Batch:
    """Puts a batch on the default device, unless it is laid out on devices already."""
    laid_out = all(isinstance(array, jax.Array) for array in batch.values())
    return batch if laid_out else jax.device_put(batch)


@jax.jit
def _count(
    inputs: Int[Array, "batch source"], weights: Float[Array, "batch target"]
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Examples in a batch, and tokens of inputs and targets together; padding is neither.

    Counted on the device, where a batch that is spread over several stays whole.
    """
    examples = jnp.count_nonzero(jnp.any(weights > 0, axis=-1))
    return examples, jnp.count_nonzero(inputs) + jnp.count_nonzero(weights)
