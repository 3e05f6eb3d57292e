"""Estimates the cost of a sweep on other hardware: `prompt-tuning sweep FILE --plan`.

Runs of one population differ in cost only by their lengths, so `prompt-tuning plan` runs once per
group of equal cost, and its hours count for each run of the group. Members that train together take
about as long as in sequence (benchmarks/population.py), as they process the same number of
examples.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prompt_tuning.analysis.tables import Table
from prompt_tuning.cli.plan import run_apart
from prompt_tuning.errors import UserError
from prompt_tuning.planning.machines import Machine
from prompt_tuning.sweeps.runs import SweepRun

_OF_COST = ("PROMPT_LENGTH", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS")
"""Per-member settings that change a run's cost."""


class Cost(NamedTuple):
    """Number of runs in a group of equal cost, and the plan of one of them (`Plan.to_json`)."""

    runs: int
    plan: Mapping[str, Any]

    @property
    def hours(self) -> float:
        """Hours of the whole group, without evaluations; 0 if the compiler refuses its step."""
        return self.runs * (self.plan["hours"] or 0.0)


def costs(
    runs: Sequence[SweepRun],
    machine: Machine,
    search_paths: str,
    progress: Callable[[str], None],
) -> list[Cost]:
    """Returns the cost of each group, in the order of each group's first run.

    Args:
      runs: a sweep's runs.
      machine: the hardware to plan for.
      search_paths: folders to search for gin files.
      progress: called with a line on each compilation.

    Raises:
      UserError: a plan can't be made.
    """
    sorts: dict[tuple[object, ...], list[SweepRun]] = {}
    for run in runs:
        key = (run.shared, *(run.resolved.get(name) for name in _OF_COST))
        sorts.setdefault(key, []).append(run)
    found = []
    for number, same in enumerate(sorts.values(), start=1):
        progress(f"[{number}/{len(sorts)}] planning {same[0].name} ...")
        found.append(Cost(len(same), _plan(same[0], machine, search_paths)))
    return found


def _plan(run: SweepRun, machine: Machine, search_paths: str) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        flags = [f"--accelerator={machine.accelerator.name}", f"--devices={machine.devices}"]
        flags += ["--no_advice", f"--json={file}", "--gin.MODEL_DIR='-'", *run.flags(search_paths)]
        ended = run_apart(flags, machine, capture_output=True)
        if ended.returncode:
            why = ended.stderr.strip().splitlines() or ["it was killed."]
            raise UserError(f"Can't plan {run.name}: {why[-1].removeprefix('prompt-tuning: ')}")
        return json.loads(file.read_text())


def cost_text(found: Sequence[Cost], machine: Machine) -> str:
    """Returns a table of the costs with their sum."""
    table = Table(
        title="",
        columns=("model", "prompt", "runs", "s a step", "h a run", "h in total", "fits"),
        rows=[
            (
                cost.plan["model"],
                cost.plan["prompt_length"],
                cost.runs,
                float(f"{cost.plan['seconds']['step']:.3g}") if cost.hours else None,
                round(cost.plan["hours"], 2) if cost.hours else None,
                round(cost.hours, 1) if cost.hours else None,
                "yes" if cost.plan["fits"] else "no",
            )
            for cost in found
        ],
    )
    hours = sum(cost.hours for cost in found)
    text = f"{table.text()}\n{hours:,.1f} hours of {machine} in total, without evaluations."
    if not all(cost.plan["fits"] for cost in found):
        text += " For what doesn't fit, prompt-tuning plan suggests settings that would."
    return text
