"""Many prompts at once, on one copy of the frozen weights, each as if it were trained alone.

    train_population(members, loss_fn=..., frozen=..., evaluate=..., places=16)

Members may differ in seed, learning rate, initialisation, prompt length and task; each has its own
optimiser state, random keys, data order, early stopping and run folder, in which is what a run of
its own would have written, to within rounding. `places` of them train at a time; one that stops
gives its place to the next that waits. With `Halving` the members that score lowest are dropped on
the way.

Side by side they are computed in one program, and once half of the places are empty a smaller one
takes over; else one after another, by programs of one member each: one for each kind of member
and length of its inputs.

The compiled step is in `population_step.py`, a run's record in `run.py`, who shares a program in
`places.py`. A population that was killed goes on from its members' checkpoints.
"""

import collections
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.manager import CheckpointManager
from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Method, Trained
from prompt_tuning.models.quantization import count_parameters
from prompt_tuning.training.early_stopping import Best
from prompt_tuning.training.halving import Halving, Standing, ranked, standing
from prompt_tuning.training.logging import read_rows
from prompt_tuning.training.loop import check_divisible
from prompt_tuning.training.optimizers import Optimizer
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.places import groups_by_length, program_size, program_sizes
from prompt_tuning.training.population_step import Kind, make_population_step, stack_batches
from prompt_tuning.training.run import (
    STEPS_IN_FLIGHT,
    Diverged,
    Evaluation,
    Run,
)
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.screen import PopulationScreen
from prompt_tuning.training.signals import Interrupted, StopRequest
from prompt_tuning.training.step import Batch, InjectionLossFn, StepMetrics, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One of the runs of a population; its fields are the arguments of `loop.train`.

    name: what it is called on the screen and in results; no two have the same.
    method, trained: what turns the numbers into an injection, and their first values.
    """

    name: str
    folder: RunFolder
    options: TrainOptions
    method: Method
    optimizer: Optimizer
    trained: Trained
    batches: Callable[[int], Batch]
    save_best: Callable[[Any, int, float], None] | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberResult:
    """How a member ended.

    ended: why, in a few words.
    trained: the numbers after its last step; None where it had ended before this process began.
    """

    name: str
    step: int
    best: Best
    ended: str
    trained: Trained | None


Evaluate = Callable[[Sequence[Member], Sequence[Trained]], Sequence[Evaluation]]
"""(members, their numbers) -> what the development set says about each."""


def train_population(
    members: Sequence[Member],
    *,
    loss_fn: InjectionLossFn,
    frozen: Any,
    evaluate: Evaluate | None = None,
    places: int = 16,
    side_by_side: bool = True,
    halving: Halving | None = None,
    place: Callable[[Batch], Any] = lambda batch: batch,
) -> list[MemberResult]:
    """Trains every member to its end; goes on where their folders left off.

    Args:
      members: at least one; all with the same `accumulation_steps`.
      loss_fn: (injection, frozen, batch, key) -> (sum of losses, sum of weights).
      frozen: what stays as it is; neither changed nor saved.
      evaluate: for all members that are due at the same time. None: nothing is evaluated.
      places: how many train at a time; memory for activations grows with it if side by side.
      side_by_side: compute their steps in one program, which fills a device that one member leaves
        idle, or one after another.
      halving: drop the worst on the way; needs `evaluate`.
      place: puts a batch of [members, batch, length] arrays on the devices.

    Returns:
      How each ended, in the order given. A member that diverged is among them and stops none
      of the others.

    Raises:
      UserError: members don't fit together, all have diverged, or as `loop.train`.
      Interrupted: SIGTERM or Ctrl-C came. All is saved; the same call goes on.
    """
    _check(members, places, halving, evaluate)
    with StopRequest() as stop:
        population = _Population(
            members, loss_fn, frozen, evaluate, places, side_by_side, place, stop
        )
        try:
            population.train(halving)
        finally:
            population.close()
    results = [population.results[member.name] for member in members]
    if all(result.ended.startswith(_DIVERGED) for result in results):
        raise UserError(
            f"All members diverged; the first, {results[0].name}, {results[0].ended}. "
            "Lower LEARNING_RATE, and give another MODEL_DIR or --overwrite."
        )
    return results


_DIVERGED, _TO_THE_END = "diverged", "trained to its last step"


class _Active:
    """A member that has been started, and what the program needs of it."""

    def __init__(self, member: Member, run: Run, checkpoints: CheckpointManager):
        self.member, self.run, self.checkpoints = member, run, checkpoints
        self.kind = Kind.of(member.method, member.optimizer)
        self.key_data = np.asarray(jax.random.key_data(run.key))
        self.training = False
        self._rates = member.optimizer.rates(member.options.train_steps)
        injection = member.method.apply(member.trained, member.batches(0))
        self.prompt_length = injection.encoder_prompt_length + injection.encoder_suffix_length

    @property
    def rate(self) -> np.floating:
        """The learning rate of its next step; after the last step, of that."""
        return self._rates[min(self.run.step, len(self._rates) - 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _InFlight:
    """A program that has been started, and the steps that it makes.

    steps: (place in the program, whose step, its number, its examples, its tokens).
    """

    steps: Sequence[tuple[int, _Active, int, int, int]]
    metrics: StepMetrics


class _Population:
    def __init__(self, members, loss_fn, frozen, evaluate, places, side_by_side, place, stop):
        self._members, self._frozen, self._evaluate = members, frozen, evaluate
        self._place, self._stop = place, stop
        self._places, self._side_by_side = min(places, len(members)), side_by_side
        self._sizes = program_sizes(self._places)
        self._step = make_population_step(loss_fn, members[0].options.accumulation_steps)
        self._frozen_parameters = count_parameters(frozen)
        self._target_length = max(
            np.shape(member.batches(0)["decoder_target_tokens"])[1] for member in members
        )
        self._started: dict[str, _Active] = {}
        self._in_flight: collections.deque[_InFlight] = collections.deque()
        self.results: dict[str, MemberResult] = {}
        for member in members:
            self._take_result(member)
        left = [member for member in members if member.name not in self.results]
        self._screen = PopulationScreen(sum(member.options.train_steps for member in left))

    def train(self, halving: Halving | None) -> None:
        """Trains from rung to rung, and those that are left to their end."""
        options = self._members[0].options
        rungs = [] if halving is None else halving.steps(
            members=len(self._members),
            train_steps=options.train_steps,
            eval_every=options.eval_every,
        )  # fmt: skip
        left = list(self._members)
        for rung in rungs:
            self._train_until(left, rung)
            assert halving is not None
            left = self._drop_worst(left, rung, halving)
        self._train_until(left, None)

    def close(self) -> None:
        """Closes every file."""
        for active in self._started.values():
            active.run.close()
            active.checkpoints.close()
        self._screen.close()

    # Members coming and going.

    def _train_until(self, members: Iterable[Member], step: int | None) -> None:
        """Trains each member up to a step (None: its last), `places` of them at a time."""
        waiting = collections.deque(member for member in members if member.name not in self.results)
        lineup: list[_Active] = []
        while True:
            lineup = self._fill(lineup, waiting, step)
            if not any(active.training for active in lineup):
                return
            self._tick(lineup, step)
            self._screen.show(sum(active.training for active in lineup))

    def _fill(
        self, lineup: list[_Active], waiting: collections.deque[Member], until: int | None
    ) -> list[_Active]:
        """Gives free places to waiting members; makes the lineup smaller where none waits."""
        while waiting and sum(active.training for active in lineup) < self._places:
            free = [place for place, active in enumerate(lineup) if not active.training]
            room = self._places - len(lineup) + len(free)
            new = [self._start(waiting.popleft()) for _ in range(min(room, len(waiting)))]
            self._run_evaluations([active for active in new if active.run.step == 0])
            for active in new:
                active.training = True
                self._end_or_pause(active, until)
                if not active.training:
                    continue
                # Best where one of its kind was: then the program stays the same.
                alike = [place for place in free if lineup[place].kind == active.kind]
                if free:
                    place = alike[0] if alike else free[0]
                    free.remove(place)
                    lineup[place] = active
                else:
                    lineup.append(active)
        training = [active for active in lineup if active.training]
        if not self._side_by_side or _exchangeable(lineup):
            return training
        # In a mixed lineup ended members hold their places, lest each end compile another program.
        smaller = program_size(max(1, len(training)), self._sizes) < len(lineup)
        return training if smaller else lineup

    def _start(self, member: Member) -> _Active:
        """Opens a member's run, or finds it open since the last rung."""
        if member.name not in self._started:
            options = member.options
            checkpoints = CheckpointManager(
                member.folder.checkpoints, keep=options.keep_checkpoints
            )
            run = Run(
                options=options,
                folder=member.folder,
                checkpoints=checkpoints,
                state=TrainState.create(
                    jax.tree.map(jnp.asarray, member.trained), member.optimizer
                ),
                frozen_parameters=self._frozen_parameters,
                save_best=member.save_best,
                screen=self._screen.member(member.name),
            )
            self._started[member.name] = _Active(member, run, checkpoints)
        return self._started[member.name]

    def _end_or_pause(self, active: _Active, until: int | None) -> None:
        run = active.run
        if run.ended:
            last = run.step >= run.options.train_steps
            self._end(active, _TO_THE_END if last else "no better score for a while")
        elif until is not None and run.step >= until:
            active.training = False

    def _end(self, active: _Active, reason: str) -> None:
        """Ends a member for good; its folder says why."""
        active.training = False
        run, member = active.run, active.member
        run.wait()
        run.close()
        active.checkpoints.close()
        run.write_summary({**member.facts, "ended": reason})
        self._started.pop(member.name)
        result = run.result()
        self.results[member.name] = MemberResult(
            name=member.name,
            step=result.step,
            best=result.best,
            ended=reason,
            trained=result.trained,
        )

    def _take_result(self, member: Member) -> None:
        """Takes the result of a member that ended before this process began.

        One that was trained to its last step continues where it has more steps to make now.
        """
        path = member.folder.summary
        if not path.exists():
            return
        found = json.loads(path.read_text())
        if found.get("ended") == _TO_THE_END and found["steps"] < member.options.train_steps:
            return
        self.results[member.name] = MemberResult(
            name=member.name,
            step=found["steps"],
            best=Best(
                step=found["best_step"], score=found["score"], metrics=dict(found["metrics"])
            ),
            ended=found.get("ended", "trained before"),
            trained=None,
        )

    def _drop_worst(self, members: Sequence[Member], rung: int, halving: Halving) -> list[Member]:
        """Returns the members that go on after a rung, and ends the others."""
        standings: dict[str, Standing] = {
            member.name: standing(read_rows(member.folder.metrics), rung) for member in members
        }
        for name, result in self.results.items():
            if name in standings and result.ended.startswith(_DIVERGED):
                standings[name] = (math.nan, 0)
        order = ranked(standings)
        keep = halving.kept(len(order)) if len(order) > 1 else 1
        worst_kept = standings[order[keep - 1]][0]
        by_name = {member.name: member for member in members}
        for rank, name in enumerate(order[keep:], start=keep + 1):
            if name in self.results:
                continue
            score = standings[name][0]
            reason = (
                f"dropped at step {rung:,} ({score:.4f}, rank {rank} of {len(order)}; "
                f"cut-off {worst_kept:.4f})"
            )
            self._end(self._start(by_name[name]), reason)
            self._screen.line(f"{name} {reason}.")
        return [by_name[name] for name in sorted(order[:keep], key=list(by_name).index)]

    # Steps.

    def _tick(self, lineup: Sequence[_Active], until: int | None) -> None:
        """Makes one step of every member that trains, and what follows on it."""
        batches = {
            active.member.name: active.member.batches(active.run.step)
            for active in lineup
            if active.training
        }
        for active in lineup:
            if active.training:
                check_divisible(
                    batches[active.member.name], active.member.options.accumulation_steps
                )
        for group in self._groups(lineup, batches):
            self._start_program(group, batches)
        self._stop.begin_saving()
        training = [active for active in lineup if active.training]
        signal_number = self._stop.signal_number
        eventful = [
            active
            for active in training
            if active.run.evaluation_due or active.run.checkpoint_due or active.run.step == until
        ]
        self._drain(0 if eventful or signal_number else STEPS_IN_FLIGHT)
        self._run_evaluations([active for active in eventful if active.run.evaluation_due])
        for active in training:
            if active.training:
                active.run.end_step(save=bool(signal_number) or active.run.step == until)
                self._end_or_pause(active, until)
        if signal_number:
            for active in self._started.values():
                active.run.wait()
            self._screen.line("Stopped and saved; the same command resumes from here.")
            raise Interrupted(signal_number)

    def _groups(
        self, lineup: Sequence[_Active], batches: Mapping[str, Batch]
    ) -> list[Sequence[_Active]]:
        """Returns who shares a program; one that doesn't train only fills it up."""
        if not self._side_by_side:
            return [[active] for active in lineup if active.training]
        if not _exchangeable(lineup):
            return [lineup]
        lengths = [
            np.shape(batches[active.member.name]["encoder_input_tokens"])[1] for active in lineup
        ]
        others = lineup[0].prompt_length + self._target_length
        groups = groups_by_length(lengths, self._sizes, others)
        return [[lineup[place] for place in group] for group in groups]

    def _start_program(self, group: Sequence[_Active], batches: Mapping[str, Batch]) -> None:
        """Starts a step of those of a group that train."""
        group = list(group)
        training = [active for active in group if active.training]
        if _exchangeable(group):
            group += training[:1] * (program_size(len(group), self._sizes) - len(group))
        # A place without a member computes on another's batch, and nobody looks at the result.
        rows = [
            batches[(active if active.training else training[0]).member.name] for active in group
        ]
        states, metrics = self._step(
            tuple(active.run.state for active in group),
            self._frozen,
            self._place(stack_batches(rows, self._target_length)),
            np.stack([active.key_data for active in group]),
            np.stack([active.rate for active in group]),
            kinds=tuple(active.kind for active in group),
        )
        steps = []
        for active in training:
            place = group.index(active)
            batch = batches[active.member.name]
            active.run.started_step(states[place])
            steps.append((place, active, active.run.step, *_count(batch)))
        self._in_flight.append(_InFlight(steps=steps, metrics=metrics))

    def _drain(self, keep: int) -> None:
        """Takes the numbers of all but the last `keep` programs."""
        while len(self._in_flight) > keep:
            program = self._in_flight.popleft()
            metrics = jax.device_get(program.metrics)
            for place, active, step, examples, tokens in program.steps:
                if not active.training:
                    continue
                try:
                    numbers = {name: values[place] for name, values in metrics.items()}
                    active.run.took_step(step, numbers, examples, tokens)
                except Diverged as error:
                    self._end(active, f"{_DIVERGED} at step {step:,}")
                    self._screen.line(f"{active.member.name}: {error}")

    def _run_evaluations(self, due: Sequence[_Active]) -> None:
        due = [active for active in due if active.member.name in self._started]
        if self._evaluate is None or not due:
            return
        started = time.monotonic()
        evaluations = self._evaluate(
            [active.member for active in due], [active.run.state.trained for active in due]
        )
        seconds = time.monotonic() - started
        for active, evaluation in zip(due, evaluations, strict=True):
            active.run.record_evaluation(evaluation, seconds)
        scores = [float(evaluation.score) for evaluation in evaluations]
        best = max(range(len(due)), key=lambda place: scores[place])
        steps = sorted({active.run.step for active in due})
        self._screen.line(
            f"step {', '.join(f'{step:,}' for step in steps)}, {len(due)} evaluated: score "
            f"{scores[best]:.4f} ({due[best].member.name}), median {statistics.median(scores):.4f}"
        )


def _exchangeable(lineup: Sequence[_Active]) -> bool:
    return len({active.kind for active in lineup}) <= 1


def _count(batch: Batch) -> tuple[int, int]:
    """Examples of a batch, and tokens of inputs and targets together; padding is neither."""
    weights = np.asarray(batch["decoder_loss_weights"])
    tokens = np.count_nonzero(batch["encoder_input_tokens"]) + np.count_nonzero(weights)
    return int(np.count_nonzero(np.any(weights > 0, axis=-1))), int(tokens)


def _check(members, places, halving, evaluate) -> None:
    if not members:
        raise UserError("The population has no members; POPULATION must list at least one.")
    names = [member.name for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(
            f"Two members of the population are called {twice}; give each its own name."
        )
    if places < 1:
        raise UserError(f"A population of {places} places can't train; it needs at least 1.")
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
