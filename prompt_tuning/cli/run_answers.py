"""Reads what a run answered, for its page: `predictions/*.jsonl` of its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.data.tables import json_lines
from prompt_tuning.data.tasks.task import is_withheld
from prompt_tuning.data.text_files import as_path

_EVALUATION = "step_"


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
