"""Reads a run's predictions, and a summary of an unfinished run, for its page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from prompt_tuning.data.tables import json_lines
from prompt_tuning.data.tasks.task import is_withheld
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.recipes.gin_text import literal
from prompt_tuning.training.logging import read_rows

_SCORE = "eval/score"
_EVALUATION = "step_"


def summary_so_far(path: FilePath, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the known part of an unfinished run's future summary.json.

    Args:
      path: the run folder, or a population's.
      settings: the contents of its settings.json.

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


def _so_far(path: FilePath) -> dict[str, Any]:
    """Returns the best evaluation and the progress in a folder's metrics, empty if none."""
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
    """Returns the names of the task and the model in the settings."""
    given = {
        "task": settings.get("MIXTURE_OR_TASK_NAME"),
        "model": settings.get("frozen_model.architecture", settings.get("INITIAL_CHECKPOINT_PATH")),
    }
    return {name: str(literal(text)) for name, text in given.items() if text}


def run_answers(
    path: FilePath, summary: Mapping[str, Any]
) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Returns predictions with known targets, by split or file name.

    Those of the best step are on the development split. Other files were written by
    `evaluate --predictions RUN/predictions/test.jsonl`.

    Args:
      path: a run folder, or a population's, whose best member is used.
      summary: the run's summary.

    Raises:
      UserError: a line isn't a JSON object.
    """
    folder = path / "predictions"
    if isinstance(best := summary.get("best"), str):
        folder = path / "members" / PurePosixPath(best).name / "predictions"
    found = {}
    if isinstance(step := summary.get("best_step"), int):
        file = folder / f"{_EVALUATION}{step:08d}.jsonl"
        found[f"development split at the best step, {step:,}"] = _rows(file)
    files = {*folder.glob("*.jsonl"), *(path / "predictions").glob("*.jsonl")}
    for file in sorted(files):
        if not file.name.startswith(_EVALUATION):
            found[file.stem] = _rows(file)
    return {name: rows for name, rows in found.items() if rows}


def _rows(file: FilePath) -> list[Mapping[str, Any]]:
    if not file.is_file():
        return []
    return [
        row
        for _, row in json_lines(as_path(file))
        if "prediction" in row and "targets" in row and not is_withheld(row)
    ]
