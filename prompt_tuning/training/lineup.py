"""The queue of members: those that train, those that wait, and the results of the others."""

import collections
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from prompt_tuning.parallel.processes import first_then_all
from prompt_tuning.training.early_stopping import Best
from prompt_tuning.training.halving import BestScore, Halving, best_until, ranked
from prompt_tuning.training.logging import read_rows
from prompt_tuning.training.run import ActiveRun, Member, TrainResult

T = TypeVar("T")

_DIVERGED = "diverged"
_TO_THE_END = "trained to its last step"


class Lineup:
    """Members that train, a few at a time; when one ends, the next in the queue starts.

    Attributes:
      results: of the members that have ended, by name.
      open: started runs that have not ended, by name.
      training: the runs that take part in the next step.
    """

    def __init__(self, members: Sequence[Member], concurrency: int):
        self._members, self._concurrency = members, min(concurrency, len(members))
        self._waiting: collections.deque[Member] = collections.deque()
        self._until: int | None = None
        self.open: dict[str, ActiveRun] = {}
        self.training: list[ActiveRun] = []
        # A single run is opened even if it is complete: its caller needs the parameters.
        in_population = members[0].in_population
        self.results = _read_on_all(lambda: _results_before(members)) if in_population else {}

    @property
    def complete(self) -> bool:
        """Whether all members have ended."""
        return len(self.results) == len(self._members)

    def wait(self, members: Sequence[Member], until: int | None) -> None:
        """Queues members to train up to a step, or to their last step if None."""
        self._until = until
        self._waiting.extend(member for member in members if member.name not in self.results)

    def start(self, open_run: Callable[[Member], ActiveRun]) -> list[ActiveRun]:
        """Opens as many waiting members as there is room for; call `admit` next."""
        room = min(self._concurrency - len(self.training), len(self._waiting))
        started = [self._waiting.popleft() for _ in range(room)]
        for member in started:
            if member.name not in self.open:  # else already open since the previous rung
                self.open[member.name] = open_run(member)
        return [self.open[member.name] for member in started]

    def admit(self, runs: Sequence[ActiveRun]) -> None:
        """Adds opened runs to those that train, unless they have already reached their step."""
        self.training += runs
        self.drop_arrived()

    def drop_arrived(self) -> None:
        """Ends complete runs, and removes those that have reached the next rung from `training`."""
        for run in self.training:
            if run.ended:
                last = run.step >= run.options.train_steps
                self.end(run, _TO_THE_END if last else str(run.stops_early))
        if self._until is not None:
            self.training = [run for run in self.training if run.step < self._until]

    def end_diverged(self, run: ActiveRun, step: int) -> None:
        """Ends a run that diverged at a step."""
        self.end(run, f"{_DIVERGED} at step {step:,}", diverged=True)

    def end(self, run: ActiveRun, reason: str, *, diverged: bool = False) -> None:
        """Ends a run for good, with the reason in its summary."""
        run.wait()
        run.close()
        run.write_summary({"ended": reason} if run.member.in_population else {})
        del self.open[run.name]
        self.training = [other for other in self.training if other is not run]
        self.results[run.name] = run.result(reason, diverged=diverged)

    def drop_worst(
        self,
        members: Sequence[Member],
        rung: int,
        halving: Halving,
        open_run: Callable[[Member], ActiveRun],
        line: Callable[[str], None],
    ) -> list[Member]:
        """Ends the members with the lowest scores at a rung; returns those that remain."""

        def score(member: Member) -> BestScore:
            result = self.results.get(member.name)
            diverged = result is not None and result.diverged
            return best_until([] if diverged else read_rows(member.folder.metrics), rung)

        found = _read_on_all(lambda: {member.name: score(member) for member in members})
        order = ranked(found)
        keep = halving.kept(len(order)) if len(order) > 1 else 1
        for rank, name in enumerate(order[keep:], start=keep + 1):
            if name in self.results:
                continue
            if name not in self.open:
                member = next(member for member in members if member.name == name)
                self.open[name] = open_run(member)
            reason = (
                f"dropped at step {rung:,} ({found[name][0]:.4f}, rank {rank} of {len(order)}; "
                f"cut-off {found[order[keep - 1]][0]:.4f})"
            )
            self.end(self.open[name], reason)
            line(f"{name} {reason}.")
        return [member for member in members if member.name in order[:keep]]


def _read_on_all(read: Callable[[], T]) -> T:
    """Reads on every process what the first one has written, before it writes more."""
    found = first_then_all(read)
    first_then_all(lambda: None)
    return found


def _results_before(members: Sequence[Member]) -> dict[str, TrainResult]:
    """Returns the results of members that ended before this process began.

    Omits a member trained to its last step if its `train_steps` has been raised since.
    """
    results = {}
    for member in members:
        if not member.folder.summary.exists():
            continue
        found = json.loads(member.folder.summary.read_text())
        ended = found.get("ended", "trained before")
        early = found["steps"] < member.options.train_steps
        if ended == _TO_THE_END and early:
            continue
        results[member.name] = TrainResult(
            name=member.name,
            step=found["steps"],
            best=Best(
                step=found["best_step"], score=found["score"], metrics=dict(found["metrics"])
            ),
            ended=ended,
            trained=None,
            stopped_early=early,
            diverged=ended.startswith(_DIVERGED),  # the summary has only the text
        )
    return results
