"""What a sweep takes on a machine that isn't at hand: `prompt-tuning sweep FILE --plan`.

Runs that a population could hold cost the same but for their lengths, so one `prompt-tuning plan`
is made for each sort of runs, and its hours are counted for each run of it. Members that train
together take about what they take one after the other (benchmarks/population.py): their examples
are as many.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from prompt_tuning.analysis.tables import Table
from prompt_tuning.cli.sweep_plan import Run
from prompt_tuning.errors import UserError

_OF_COST = ("PROMPT_LENGTH", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS")
"""What members of a population may differ in, and changes what a run takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What each run of a sort takes.

    Attributes:
      runs: how many there are of it.
      model: its name.
      prompt_length: in virtual tokens.
      step_seconds: of a training step, estimated.
      hours: of a run's steps, without evaluations.
      fits: whether it fits into the machine's memory.
    """

    runs: int
    model: str
    prompt_length: int
    step_seconds: float
    hours: float
    fits: bool


def costs(
    runs: Sequence[Run],
    accelerator: str,
    devices: int | None,
    search_paths: str,
    progress: Callable[[str], None],
) -> list[Cost]:
    """Returns the cost of each sort of runs, in the order of the first of each.

    Args:
      runs: of a sweep.
      accelerator: as `prompt-tuning plan` takes it.
      devices: how many, where the accelerator's name doesn't say.
      search_paths: where gin files are looked for.
      progress: is told what is compiled.

    Raises:
      UserError: a plan can't be made; it says why.
    """
    sorts: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        key = (run.shared, *(run.resolved.get(name) for name in _OF_COST))
        sorts.setdefault(key, []).append(run)
    found = []
    for number, (first, *others) in enumerate(sorts.values(), start=1):
        progress(f"[{number}/{len(sorts)}] planning {first.name} ...")
        found.append(_cost(first, 1 + len(others), accelerator, devices, search_paths))
    return found


def _cost(run: Run, count: int, accelerator: str, devices: int | None, search_paths: str) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        flags = [f"--accelerator={accelerator}", "--no_advice", f"--json={file}"]
        flags += [f"--devices={devices}"] if devices is not None else []
        flags += [f"--gin_file={name}" for name in run.files]
        flags += [f"--gin.{name}={value!r}" for name, value in run.bindings.items()]
        flags.append("--gin.MODEL_DIR='-'")
        flags += [f"--gin_search_paths={search_paths}"] if search_paths else []
        command = [sys.executable, "-m", "prompt_tuning.cli", "plan", *flags]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            why = ended.stderr.strip().splitlines() or ["it was killed."]
            raise UserError(f"No plan of {run.name}: {why[-1].removeprefix('prompt-tuning: ')}")
        plan = json.loads(file.read_text())
    return Cost(
        runs=count,
        model=plan["model"],
        prompt_length=plan["prompt_length"],
        step_seconds=plan["seconds"]["step"],
        hours=plan["hours"],
        fits=plan["fits"],
    )


def cost_text(found: Sequence[Cost], machine: str) -> str:
    """Returns the costs as a table, and their sum."""
    table = Table(
        title="",
        columns=("model", "prompt", "runs", "s a step", "h a run", "h in all", "fits"),
        rows=[
            (
                cost.model,
                cost.prompt_length,
                cost.runs,
                float(f"{cost.step_seconds:.3g}"),
                round(cost.hours, 2),
                round(cost.runs * cost.hours, 1),
                "yes" if cost.fits else "no",
            )
            for cost in found
        ],
    )
    hours = sum(cost.runs * cost.hours for cost in found)
    text = f"{table.text()}\n{hours:,.1f} hours of {machine} in all, without evaluations."
    if not all(cost.fits for cost in found):
        text += " What doesn't fit: prompt-tuning plan shows what would."
    return text
