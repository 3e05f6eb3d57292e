"""The training loop, for one run or several on one copy of the frozen weights.

    for step: batch -> train_step -> metrics, fetched a few programs late
              at intervals: evaluate, keep the best, save a checkpoint

A single run is a list of one member. Members may differ in seed, learning rate, initialization,
prompt length and task. Each has its own optimizer state, random keys, data order, early stopping
and run folder; its results match those of a single run to within rounding. `concurrency` members
train at a time; when one ends, the next in the queue starts. `Halving` drops the members with the
lowest scores at intermediate steps. Steps run in turns, or side by side in one program
(`side_by_side.py`).

The loop dispatches steps and records them; `lineup.py` decides which members train, and `run.py`
reads and writes the files of a run. Steps are pure functions (`step.py`). A run's result depends on
its settings only: batches and random keys follow from the seed and the step, and a checkpoint
stores the rest, so a run that was killed and resumed ends exactly like an uninterrupted one.
"""

import collections
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree

from prompt_tuning.errors import UserError, at_least
from prompt_tuning.host_memory import check_memory
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.training.devices import Devices
from prompt_tuning.training.halving import Halving
from prompt_tuning.training.inputs import Input
from prompt_tuning.training.lineup import Lineup
from prompt_tuning.training.monitoring import Monitoring, StepFlops
from prompt_tuning.training.profiling import Profile
from prompt_tuning.training.run import ActiveRun, Diverged, Evaluation, Member, TrainResult
from prompt_tuning.training.screen import PopulationScreen
from prompt_tuning.training.side_by_side import SideBySide
from prompt_tuning.training.signals import Interrupted, StopRequest
from prompt_tuning.training.startup import startup_line
from prompt_tuning.training.step import ProgramKey, StepMetrics, make_train_step

PROGRAMS_IN_FLIGHT = 2
"""Maximum number of programs dispatched but not yet fetched: enough to keep a device busy."""

Evaluate = Callable[[Sequence[Member], Sequence[Any]], Sequence[Evaluation]]
"""(members, their trainable parameters) -> each one's evaluation on the development set."""


def train_loop(
    members: Sequence[Member],
    *,
    frozen: PyTree,
    evaluate: Evaluate | None = None,
    layout: Layout | None = None,
    monitoring: Monitoring | None = None,
    concurrency: int = 16,
    side_by_side: bool = False,
    halving: Halving | None = None,
) -> list[TrainResult]:
    """Trains every member to its end; resumes from the checkpoints in their folders.

    Args:
      members: a single run, without a name; or several runs with different names and the same
        `accumulation_steps`.
      frozen: the frozen weights; neither changed nor saved.
      evaluate: called with all members due at the same time. If None, nothing is evaluated, and no
        prompt is saved as the best.
      layout: how arrays are sharded over the devices of one or several processes. All processes run
        this loop with the same arguments; only the first writes to the folders. If None, JAX's
        default device is used.
      monitoring: options of measurements and profiling.
      concurrency: how many members train at a time.
      side_by_side: run all members' steps in one vmapped program (better utilization, more memory
        for activations) instead of one program each.
      halving: drops the worst members at intermediate steps; needs `evaluate`.

    Returns:
      How each member ended, in the order given. A member that diverged is included and doesn't
      stop the others.

    Raises:
      UserError: a single run, or every member, diverged (a loss, gradient or update is NaN or
        infinite); a file can't be written; every checkpoint is damaged; a batch isn't divisible
        by `accumulation_steps`; members differ in a setting that they must share.
      Interrupted: SIGTERM or Ctrl-C was received. Everything is saved; the same call resumes.
    """
    _check(members, concurrency, halving)
    monitoring = monitoring or Monitoring()
    devices = Devices(layout, frozen)
    flops_of = StepFlops(counted=monitoring.peak_flops is not None).of
    # Several processes stop together or not at all.
    with StopRequest(saving=devices.vote is not None) as stop:
        together = None
        # Optional: the loop works without side-by-side training, with steps in turn.
        if side_by_side and members[0].in_population:
            together = SideBySide(
                concurrency=min(concurrency, len(members)),
                target_length=max(
                    np.shape(member.batches(0)["decoder_target_tokens"])[1] for member in members
                ),
                pad_id=members[0].pad_id,
                frozen=frozen,
                accumulation_steps=members[0].options.accumulation_steps,
                layout_of=lambda runs: devices.outputs(tuple(run.state for run in runs)),
                place_batch=devices.put_members,
                flops_of=flops_of,
            )
        loop = _Loop(
            members,
            frozen=frozen,
            evaluate=evaluate,
            devices=devices,
            monitoring=monitoring,
            flops_of=flops_of,
            lineup=Lineup(members, concurrency),
            side_by_side=together,
            stop=stop,
        )
        try:
            loop.train(halving)
        finally:
            loop.close()
    results = [loop.lineup.results[member.name] for member in members]
    if all(result.diverged for result in results):
        raise UserError(
            f"All members diverged; the first, {results[0].name}, {results[0].ended}. "
            "Lower LEARNING_RATE, and give another MODEL_DIR or --overwrite."
        )
    return results


class _InFlight(NamedTuple):
    """A dispatched program that computes one step of one run or several.

    Attributes:
      metrics: scalars of one run, or [rows] of several.
      steps: the runs, each with its index into the metrics; `()` selects a scalar itself.
      signal_number: the maximum over all processes; 0 if no signal was received.
    """

    metrics: StepMetrics
    steps: Sequence[tuple[ActiveRun, Any]]
    signal_number: Array | int


class _Loop:
    """Runs, records, evaluates and saves the steps of the members in a lineup."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        frozen: PyTree,
        evaluate: Evaluate | None,
        devices: Devices,
        monitoring: Monitoring,
        flops_of: Callable[..., int],
        lineup: Lineup,
        side_by_side: SideBySide | None,
        stop: StopRequest,
    ):
        self._members, self._frozen, self._evaluate = members, frozen, evaluate
        self._devices, self.lineup, self._side_by_side = devices, lineup, side_by_side
        self._stop, self._voted_signal = stop, 0
        self._startup, self._peak_flops = monitoring.startup, monitoring.peak_flops
        self._flops_of = flops_of
        self._frozen_parameters = count_parameters(frozen)
        self._programs: dict[ProgramKey, Any] = {}
        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self._profile = Profile(
            monitoring.profile_folder or members[0].folder.profile,
            monitoring.profile_steps,
            end=max(member.options.train_steps for member in members),
        )
        self._screen = None
        if members[0].in_population:
            left = [member for member in members if member.name not in lineup.results]
            self._screen = PopulationScreen(
                sum(member.options.train_steps for member in left),
                shown=members[0].folder.is_written_here,
            )

    def train(self, halving: Halving | None) -> None:
        """Trains from rung to rung, then trains the remaining members to their end."""
        left, options = self._members, self._members[0].options
        if halving is not None:
            rungs = halving.steps(
                members=len(left), train_steps=options.train_steps, eval_every=options.eval_every
            )
            for rung in rungs:
                self._train_until(left, rung)
                left = self.lineup.drop_worst(left, rung, halving, self._open_run, self._line)
        self._train_until(left, None)

    def _train_until(self, members: Sequence[Member], until: int | None) -> None:
        """Trains each member up to a step, or to its last step if None."""
        lineup = self.lineup
        lineup.wait(members, until)
        while True:
            while started := lineup.start(self._open_run):
                # Score the untrained prompt; a resumed run already has its score.
                self._run_evaluations([run for run in started if run.step == 0])
                lineup.admit(started)
            if not lineup.training:
                return
            self._start_steps(lineup.training)
            self._stop.begin_saving()
            # Fetch metrics a few programs late, unless an evaluation or a checkpoint follows.
            # Don't change the order: a checkpoint stores what was recorded and evaluated before it.
            eventful = any(
                run.evaluation_due or run.checkpoint_due or run.step == until
                for run in lineup.training
            )
            self._record_steps(0 if eventful else PROGRAMS_IN_FLIGHT)
            self._run_evaluations([run for run in lineup.training if run.evaluation_due])
            # Read only once: a signal may arrive at any time, and `Interrupted` must follow a save.
            signal_number = self._voted_signal if self._devices.vote else self._stop.signal_number
            if signal_number:
                self._record_steps(0)
            for run in lineup.training:
                run.end_step(save=bool(signal_number) or run.step == until)
            lineup.drop_arrived()
            if signal_number and not lineup.complete:
                self._raise_interrupted(signal_number)
            if self._screen is not None:
                self._screen.show(len(lineup.training))

    def close(self) -> None:
        """Closes every file."""
        self._profile.close()
        for run in self.lineup.open.values():
            run.close()
        if self._screen is not None:
            self._screen.close()

    def _open_run(self, member: Member) -> ActiveRun:
        # With side-by-side training, batches are stacked before they are put on the devices.
        alone = self._side_by_side is None
        return ActiveRun(
            member,
            state=self._devices.first_state(member),
            frozen_parameters=self._frozen_parameters,
            place_batch=self._devices.put if alone else lambda batch: batch,
            peak_flops=self._peak_flops,
            screen=None if self._screen is None else self._screen.member(member.name),
        )

    def _start_steps(self, training: Sequence[ActiveRun]) -> None:
        """Dispatches the next step of every training run."""
        inputs = {}
        for run in training:
            with run.monitor.waiting_for_input(), self._part_of_startup("data"):
                inputs[run.name] = run.batches.next()
        vote = self._devices.vote
        signal_number = vote(self._stop.signal_number or 0) if vote else 0
        start = (
            self._steps_in_turn if self._side_by_side is None else self._side_by_side.start_steps
        )
        first_round = min(run.step for run in training)
        metrics: StepMetrics = {}
        with self._part_of_startup("step"), self._profile.step(first_round):
            for metrics, steps in start(training, inputs):
                self._in_flight.append(_InFlight(metrics, steps, signal_number))
            if self._startup is not None:
                jax.block_until_ready(metrics)
        self._profile.end_step(metrics, self._line)
        if self._startup is not None:  # only after the first step
            seconds = self._startup.end()
            self._startup = None
            self._line(startup_line(seconds))
            for run in training:
                run.record_startup(seconds)

    def _steps_in_turn(
        self, training: Sequence[ActiveRun], inputs: Mapping[str, Input]
    ) -> Iterator[tuple[StepMetrics, list[tuple[ActiveRun, Any]]]]:
        """Dispatches each run's step as its own program; yields like `SideBySide.start_steps`."""
        for run in training:
            if run.program_key not in self._programs:
                self._programs[run.program_key] = make_train_step(
                    run.program_key.loss_fn,
                    run.program_key.optimizer,
                    run.options.accumulation_steps,
                    self._devices.outputs(run.state),
                )
            program = self._programs[run.program_key]
            arguments = (run.state, self._frozen, inputs[run.name].batch, run.key)
            arguments += () if run.rate is None else (run.rate,)
            check_memory(program, *arguments)
            flops = self._flops_of(program, *arguments)
            state, metrics = program(*arguments)
            run.start_step(state, inputs[run.name], flops)
            yield metrics, [(run, ())]

    def _record_steps(self, keep: int) -> None:
        """Fetches and records the metrics of all but the last `keep` programs."""
        while len(self._in_flight) > keep:
            program = self._in_flight.popleft()
            metrics, voted = jax.device_get((program.metrics, program.signal_number))
            self._voted_signal = max(self._voted_signal, int(voted))
            for run, row in program.steps:
                if run.name not in self.lineup.open:
                    continue  # it has already diverged
                try:
                    run.record_step({name: values[row] for name, values in metrics.items()})
                except Diverged as error:
                    if self._screen is None:
                        raise
                    self.lineup.end_diverged(run, error.step)
                    self._screen.line(f"{run.name}: {error}")

    def _run_evaluations(self, due: Sequence[ActiveRun]) -> None:
        if self._evaluate is None or not due:
            return
        started = time.monotonic()
        with self._part_of_startup("evaluation"):
            evaluations = self._evaluate(
                [run.member for run in due], [run.state.trained for run in due]
            )
        seconds = time.monotonic() - started
        for run, evaluation in zip(due, evaluations, strict=True):
            run.record_evaluation(evaluation, seconds)
        if self._screen is None:
            return
        scores = [float(evaluation.score) for evaluation in evaluations]
        best = max(range(len(due)), key=lambda index: scores[index])
        steps = sorted({run.step for run in due})
        self._screen.line(
            f"step {', '.join(f'{step:,}' for step in steps)}, {len(due)} evaluated: score "
            f"{scores[best]:.4f} ({due[best].name}), median {statistics.median(scores):.4f}"
        )

    def _line(self, text: str) -> None:
        """Prints a line that isn't about one member."""
        shown = next(iter(self.lineup.open.values())) if self._screen is None else self._screen
        shown.line(text)

    def _part_of_startup(self, name: str) -> AbstractContextManager[object]:
        """Counts the time inside as this part of startup, until the first step is done."""
        return contextlib.nullcontext() if self._startup is None else self._startup.part(name)

    def _raise_interrupted(self, signal_number: int) -> None:
        for run in self.lineup.open.values():
            run.wait()
        at_step = "" if self._screen else f" at step {next(iter(self.lineup.open.values())).step:,}"
        self._line(f"Stopped and saved{at_step}; the same command resumes from here.")
        raise Interrupted(signal_number)


def _check(members: Sequence[Member], concurrency: int, halving: Halving | None) -> None:
    at_least(1, {"concurrency": concurrency})
    shared = ["accumulation_steps", *(["train_steps", "eval_every"] if halving else [])]
    first = members[0]
    for member in members:
        for name in shared:
            found, expected = (getattr(each.options, name) for each in (member, first))
            if found != expected:
                raise UserError(
                    f"{name} is {found} for {member.name} and {expected} for {first.name}; members "
                    "of one population must have the same."
                )
