"""The training loop: of one run, or of several on one copy of the frozen weights.

    for step: batch -> train_step -> metrics, a few steps late
              now and then: evaluate, keep the best, save a checkpoint

A run is a list of one. Several may differ in seed, learning rate, initialization, prompt length
and task; each has its own optimizer state, random keys, data order, early stopping and run folder,
in which is what it would have written alone, to within rounding. `concurrency` of them train at a
time, and one that ends gives way to the next that waits. With `Halving` the runs that score lowest
are dropped on the way. Their steps take turns, or are made side by side in one program
(`side_by_side.py`).

All input and output of training happens here and in `run.py`, which keeps the record, between pure
steps (`step.py`). A run's result is a function of its settings alone: batches and random keys
follow from the seed and the step, and a checkpoint holds the rest, so that a run which was killed
ends exactly as one that was not.
"""

import collections
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from prompt_tuning.errors import UserError
from prompt_tuning.host_memory import check_memory
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.parallel.mesh import replicated, shard_batch, shard_members
from prompt_tuning.parallel.processes import vote_over
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.training.halving import Halving
from prompt_tuning.training.lineup import DIVERGED, Lineup
from prompt_tuning.training.monitoring import Monitoring, StepFlops
from prompt_tuning.training.profiling import Profile
from prompt_tuning.training.run import Diverged, Evaluation, Input, Member, Run, TrainResult
from prompt_tuning.training.screen import PopulationScreen
from prompt_tuning.training.side_by_side import SideBySide
from prompt_tuning.training.signals import Interrupted, StopRequest
from prompt_tuning.training.startup import startup_line
from prompt_tuning.training.step import (
    Batch,
    ProgramKey,
    StepMetrics,
    TrainState,
    make_train_step,
)

STEPS_IN_FLIGHT = 2
"""How many programs may be under way before the loop waits: enough to keep a device busy."""

Evaluate = Callable[[Sequence[Member], Sequence[Any]], Sequence[Evaluation]]
"""(members, their trainable parameters) -> what the development set says about each."""


def train(
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
    """Trains every member to its end; resumes where their folders left off.

    Args:
      members: one without a name, which trains alone; or several of different names, all with
        the same `accumulation_steps`.
      frozen: what stays as it is; neither changed nor saved.
      evaluate: for all members that are due at the same time. None: nothing is evaluated, and no
        prompt is the best.
      layout: how arrays are laid out on several devices, of one process or of several. Those all
        run this loop, with the same arguments; the first alone writes to the folders. None: as
        they are.
      monitoring: what to measure training against, and whether to record it.
      concurrency: how many members train at a time.
      side_by_side: make the members' steps in one program, which fills a device that one leaves
        idle, for as many times the memory of activations; or one after another.
      halving: drop the worst on the way; needs `evaluate`.

    Returns:
      How each ended, in the order given. A member that diverged is among them and stops none
      of the others, unless it trains alone.

    Raises:
      UserError: a run alone has diverged (a loss, gradient or update is NaN or infinite), or all
        of several; something can't be written; every checkpoint is damaged; a batch can't be cut
        into `accumulation_steps`; members don't fit together.
      Interrupted: SIGTERM or Ctrl-C came. All is saved; the same call resumes.
    """
    _check(members, concurrency, halving, evaluate)
    devices = _Devices(layout, frozen)
    # Several processes stop together or not at all.
    with StopRequest(saving=devices.vote is not None) as stop:
        loop = _Loop(
            members,
            frozen=frozen,
            evaluate=evaluate,
            devices=devices,
            monitoring=monitoring or Monitoring(),
            lineup=Lineup(members, concurrency),
            # Without this, and what asks for it in `_Loop`, members always take turns.
            side_by_side=_side_by_side(members, concurrency, frozen, devices)
            if side_by_side and members[0].name
            else None,
            stop=stop,
        )
        try:
            loop.train(halving)
        finally:
            loop.close()
    results = [loop.lineup.results[member.name] for member in members]
    if all(result.ended.startswith(DIVERGED) for result in results):
        raise UserError(
            f"All members diverged; the first, {results[0].name}, {results[0].ended}. "
            "Lower LEARNING_RATE, and give another MODEL_DIR or --overwrite."
        )
    return results


class _Step(NamedTuple):
    """A step of a run that has been started."""

    run: Run
    number: int
    input: Input
    flops: int
    row: int | tuple[()]
    """Of the run in the program's metrics; () where they are those of one run."""


class _InFlight(NamedTuple):
    """A program that has been started, and the steps that it makes."""

    metrics: StepMetrics
    steps: Sequence[_Step]
    signal_number: Array | int
    """The greatest of all processes', 0 for none."""


class _Loop:
    """Makes the steps of the members in a lineup, and what follows on them."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        frozen: PyTree,
        evaluate: Evaluate | None,
        devices: "_Devices",
        monitoring: Monitoring,
        lineup: Lineup,
        side_by_side: SideBySide | None,
        stop: StopRequest,
    ):
        self._members, self._frozen, self._evaluate = members, frozen, evaluate
        self._devices, self.lineup, self._side_by_side = devices, lineup, side_by_side
        self._stop, self._voted_signal = stop, 0
        self._monitoring, self._startup = monitoring, monitoring.startup
        self._frozen_parameters = count_parameters(frozen)
        self._programs: dict[ProgramKey, Any] = {}
        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self._flops = StepFlops()
        self._profile: Profile | None = None
        self._rounds = 0  # of one step of each run
        self._screen = None
        if members[0].name:
            left = [member for member in members if member.name not in lineup.results]
            self._screen = PopulationScreen(
                sum(member.options.train_steps for member in left),
                shown=members[0].folder.is_written_here,
            )

    def train(self, halving: Halving | None) -> None:
        """Trains from rung to rung, and those that are left to their end."""
        left, options = self._members, self._members[0].options
        if halving is not None:
            rungs = halving.steps(
                members=len(left), train_steps=options.train_steps, eval_every=options.eval_every
            )
            for rung in rungs:
                self._train_until(left, rung)
                left = self.lineup.drop_worst(left, rung, halving, self._open_run, self._line)
        self._train_until(left, None)

    def close(self) -> None:
        """Closes every file."""
        if self._profile is not None:
            self._profile.close()
        for run in self.lineup.open.values():
            run.close()
        if self._screen is not None:
            self._screen.close()

    def _train_until(self, members: Sequence[Member], step: int | None) -> None:
        """Trains each member up to a step; None: its last."""
        lineup = self.lineup
        lineup.wait(members, step)
        while True:
            while started := lineup.start(self._open_run):
                self._run_evaluations([run for run in started if run.step == 0])
                lineup.admit(started)
            if not lineup.training:
                return
            self._start_steps(lineup.training)
            self._stop.begin_saving()
            self._follow_up(until=step)
            if self._screen is not None:
                self._screen.show(len(lineup.training))

    def _open_run(self, member: Member) -> Run:
        # Batches that are to share a program are put on the devices when they have been joined.
        place_batch = self._devices.put if self._side_by_side is None else _as_it_is
        return Run(
            member,
            state=self._devices.first_state(member),
            frozen_parameters=self._frozen_parameters,
            place_batch=place_batch,
            peak_flops=self._monitoring.peak_flops,
            screen=None if self._screen is None else self._screen.member(member.name),
        )

    def _follow_up(self, until: int | None) -> None:
        """Evaluates and saves where that is due after a step, and drops runs that have ended."""
        lineup = self.lineup
        eventful = any(
            run.evaluation_due or run.checkpoint_due or run.step == until for run in lineup.training
        )
        self._record_steps(0 if eventful else STEPS_IN_FLIGHT)
        self._run_evaluations([run for run in lineup.training if run.evaluation_due])
        # Looked at once: it may come at any moment, and what is raised must be saved.
        signal_number = self._voted_signal if self._devices.vote else self._stop.signal_number
        if signal_number:
            self._record_steps(0)
        for run in lineup.training:
            run.end_step(save=bool(signal_number) or run.step == until)
        lineup.drop_arrived()
        if signal_number and not lineup.complete:
            for run in lineup.open.values():
                run.wait()
            at_step = "" if self._screen else f" at step {next(iter(lineup.open.values())).step:,}"
            self._line(f"Stopped and saved{at_step}; the same command resumes from here.")
            raise Interrupted(signal_number)

    def _start_steps(self, training: Sequence[Run]) -> None:
        inputs = {}
        for run in training:
            with run.monitor.waiting_for_input(), self._part_of_startup("data"):
                inputs[run.name] = run.batches.next()
        if self._profile is None:
            self._rounds = min(run.step for run in training)
            self._profile = Profile(
                self._monitoring.profile_folder or training[0].folder.profile,
                self._monitoring.profile_steps,
                first=self._rounds,
                end=max(member.options.train_steps for member in self._members),
            )
        signal_number = (
            self._devices.vote(self._stop.signal_number or 0) if self._devices.vote else 0
        )
        metrics: StepMetrics = {}
        with self._part_of_startup("step"), self._profile.step(self._rounds):
            for metrics, flops, states in self._started_programs(training, inputs):
                steps = []
                for row, run, state in states:
                    run.started_step(state)
                    steps.append(
                        _Step(
                            run=run, number=run.step, input=inputs[run.name], flops=flops, row=row
                        )
                    )
                self._in_flight.append(
                    _InFlight(metrics=metrics, steps=steps, signal_number=signal_number)
                )
            if self._startup is not None:
                jax.block_until_ready(metrics)
        self._rounds += 1
        self._profile.step_made(self._rounds, metrics, self._line)
        self._report_startup(training)

    def _started_programs(
        self, training: Sequence[Run], inputs: Mapping[str, Input]
    ) -> Iterator[tuple[StepMetrics, int, list[tuple[Any, Run, TrainState]]]]:
        """Starts a step of each run; yields what `SideBySide.start_steps` does."""
        if self._side_by_side is not None:
            yield from self._side_by_side.start_steps(training, inputs, self._flops_of)
            return
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
            yield metrics, flops, [((), run, state)]

    def _flops_of(self, program: Any, *arguments: Any) -> int:
        return 0 if self._monitoring.peak_flops is None else self._flops.of(program, *arguments)

    def _record_steps(self, keep: int) -> None:
        """Waits for the metrics of all but the last `keep` programs, and records them."""
        while len(self._in_flight) > keep:
            program = self._in_flight.popleft()
            metrics, voted = jax.device_get((program.metrics, program.signal_number))
            self._voted_signal = max(self._voted_signal, int(voted))
            for step in program.steps:
                if step.run.name not in self.lineup.open:
                    continue  # it has diverged before
                try:
                    step.run.record_step(
                        step.number,
                        {name: values[step.row] for name, values in metrics.items()},
                        examples=step.input.examples,
                        tokens=step.input.tokens,
                        flops=step.flops,
                    )
                except Diverged as error:
                    if self._screen is None:
                        raise
                    self.lineup.end(step.run, f"{DIVERGED} at step {step.number:,}")
                    self._screen.line(f"{step.run.name}: {error}")

    def _run_evaluations(self, due: Sequence[Run]) -> None:
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
        """Shows a line that is of no member in particular."""
        shown = next(iter(self.lineup.open.values())) if self._screen is None else self._screen
        shown.line(text)

    def _part_of_startup(self, name: str) -> AbstractContextManager[object]:
        """Until the first step is done, counts what is done inside as this part of starting."""
        return contextlib.nullcontext() if self._startup is None else self._startup.part(name)

    def _report_startup(self, training: Sequence[Run]) -> None:
        """Once the first step is done, reports how long it took to get there."""
        if self._startup is not None:
            seconds = self._startup.end()
            self._startup = None
            self._line(startup_line(seconds))
            for run in training:
                run.record_startup(seconds)


class _Devices:
    """Where arrays are put: on the one device, or as a layout says on several.

    Attributes:
      vote: puts a process's signal number to the vote of all, after the same step on each, so that
        they stop together; None of a single process.
    """

    def __init__(self, layout: Layout | None, frozen: PyTree):
        self._layout = None if layout is None or layout.mesh.size == 1 else layout
        self._frozen, self._mesh, self.vote = frozen, None, None
        if self._layout is not None:
            assert isinstance(self._layout.mesh, Mesh)
            self._mesh, self.vote = self._layout.mesh, vote_over(self._layout.mesh)

    def put(self, batch: Batch) -> Batch:
        """Puts a batch on the devices, unless it is there already."""
        if all(isinstance(array, jax.Array) for array in batch.values()):
            return batch
        return jax.device_put(batch) if self._mesh is None else shard_batch(batch, self._mesh)

    def put_members(self, batch: Batch) -> Batch:
        """Puts a batch of [members, batch, length] arrays on the devices."""
        return batch if self._mesh is None else shard_members(batch, self._mesh)

    def outputs(self, states: PyTree) -> PyTree:
        """Returns the layout of states and metrics, as `make_train_step` takes it."""
        if self._layout is None or self._mesh is None:
            return None
        return self._layout.trained_shardings(states, self._frozen), replicated(self._mesh)

    def first_state(self, member: Member) -> TrainState:
        """Returns the state before the first step, in memory of its own."""

        def create(trained: Any) -> TrainState:
            return TrainState.create(jax.tree.map(jnp.copy, trained), member.optimizer)

        if self._layout is None:
            return create(member.trained)
        # In one program: several processes can't make arrays together one operation at a time.
        shapes = jax.eval_shape(create, member.trained)
        return jax.jit(create, out_shardings=self.outputs(shapes)[0])(member.trained)


def _side_by_side(
    members: Sequence[Member], concurrency: int, frozen: PyTree, devices: _Devices
) -> SideBySide:
    return SideBySide(
        concurrency=min(concurrency, len(members)),
        target_length=max(
            np.shape(member.batches(0)["decoder_target_tokens"])[1] for member in members
        ),
        frozen=frozen,
        accumulation_steps=members[0].options.accumulation_steps,
        layout_of=lambda runs: devices.outputs(tuple(run.state for run in runs)),
        place_batch=devices.put_members,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _check(
    members: Sequence[Member],
    concurrency: int,
    halving: Halving | None,
    evaluate: Evaluate | None,
) -> None:
    if not members:
        raise UserError("The population has no members; POPULATION must list at least one.")
    names = [member.name for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(
            f"Two members of the population are called {twice}; give each its own name."
        )
    if concurrency < 1:
        raise UserError(f"population.places is {concurrency}; it must be at least 1.")
    shared = ["accumulation_steps"]
    if halving is not None:
        if evaluate is None:
            raise UserError("Successive halving needs a development score to go by.")
        shared += ["train_steps", "eval_every"]
    first = members[0]
    for member in members:
        for name in shared:
            found, expected = (getattr(each.options, name) for each in (member, first))
            if found != expected:
                raise UserError(
                    f"{name} is {found} for {member.name} and {expected} for {first.name}; members "
                    "of one population must have the same."
                )
