"""A summary of a run that is still training or was interrupted, from what it has written."""

import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.training.logging import read_rows

_SCORE = "eval/score"


def summary(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a finished run's summary.json would say, as far as it is known.

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
        told = [{"name": name, **found} for name, found in scored.items()]
        return {**_names(settings), **scored[best], "best": best, "members": told}
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
    return {name: _plain(text) for name, text in given.items() if text}


def _plain(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
