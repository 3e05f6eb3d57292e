"""Reads what a run left in its folder, for its page: its answers, and a summary before its end."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.data.tables import json_lines
from prompt_tuning.data.tasks.task import is_withheld
from prompt_tuning.data.text_files import as_path
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.gin_text import literal
from prompt_tuning.training.logging import read_rows

_SCORE = "eval/score"
_EVALUATION = "step_"


def summary_so_far(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a finished run's summary.json would hold, as far as it is known.

    Args:
      path: the run folder, or a population's.
      settings: its settings.json.

    Raises:
      UserError: nothing has been evaluated yet.
    """
    members = sorted(each.parent.name for each in path.glob("members/*/metrics.jsonl"))
    scored = {name: found for name in members if (found := _so_far(path / "members" / name))}
    if members and scored:
        best = max(scored, key=lambda name: scored[name]["score"])
        table = [{"name": name, **found} for name, found in scored.items()]
        return {**_names(settings), **scored[best], "best": best, "members": table}
    found = _so_far(path)
    if not found:
        raise UserError(
            f"The run in {path} has not been evaluated yet; try again after its first evaluation "
            "(step 0)."
        )
    return {**_names(settings), **found}


def _so_far(path: Path) -> dict[str, Any]:
    """The best evaluation in a folder's metrics, and how far it is; empty without one."""
    if not (path / "metrics.jsonl").is_file():
        return {}
    rows = read_rows(path / "metrics.jsonl")
    scored = [row for row in rows if _SCORE in row and math.isfinite(row[_SCORE])]
    if not scored:
        return {}
    best = max(scored, key=lambda row: row[_SCORE])
    last = rows[-1]
    return {
        "score": best[_SCORE],
        "metrics": {
            name.removeprefix("eval/"): value
            for name, value in best.items()
            if name.startswith("eval/") and name != _SCORE
        },
        "best_step": int(best["step"]),
        "steps": int(last["step"]),
        "ended": "not finished: still training, or interrupted",
        "wall_seconds": scored[-1].get("seconds"),
    }


def _names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The task and the model, as the settings name them."""
    given = {
        "task": settings.get("MIXTURE_OR_TASK_NAME"),
        "model": settings.get("frozen_model.architecture", settings.get("INITIAL_CHECKPOINT_PATH")),
    }
    return {name: str(literal(text)) for name, text in given.items() if text}


def run_answers(path: Path, summary: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Returns predictions whose targets are known, by what they are of.

    Those of the best step are of the development split. Files of other names are what
    `evaluate --predictions RUN/predictions/test.jsonl` wrote there.

    Args:
      path: a run folder, or a population's, whose best member counts.
      summary: of the run.

    Raises:
      UserError: a line is no JSON object.
    """
    folder = path / "predictions"
    if isinstance(best := summary.get("best"), str):
        folder = path / "members" / Path(best).name / "predictions"
    found = {}
    if isinstance(step := summary.get("best_step"), int):
        file = folder / f"{_EVALUATION}{step:08d}.jsonl"
        found[f"development split at the best step, {step:,}"] = _rows(file)
    files = {*folder.glob("*.jsonl"), *(path / "predictions").glob("*.jsonl")}
    for file in sorted(files):
        if not file.name.startswith(_EVALUATION):
            found[file.stem] = _rows(file)
    return {name: rows for name, rows in found.items() if rows}


def _rows(file: Path) -> list[Mapping[str, Any]]:
    if not file.is_file():
        return []
    return [
        row
        for _, row in json_lines(as_path(file))
        if "prediction" in row and "targets" in row and not is_withheld(row)
    ]
