"""Suggested commands for a finished run, depending on its task."""

import json
from collections.abc import Sequence

from prompt_tuning.data.tasks.task import Task
from prompt_tuning.files import FilePath


def infer_command(folder: str | FilePath, tasks: Sequence[Task]) -> str:
    """Returns an `infer` command for a run, with an example of its input.

    Args:
      folder: the run folder.
      tasks: the run's tasks.
    """
    row = tasks[0].row_form if len(tasks) == 1 else {}
    if len(row) == 1:
        return (
            f"prompt-tuning infer {folder} --input lines.txt  (or a CSV file's {next(iter(row))!r})"
        )
    if row:
        or_table = (
            "" if any(isinstance(value, list) for value in row.values()) else ", or a CSV file"
        )
        example = json.dumps(row)
        return f"prompt-tuning infer {folder} --input new.jsonl  (lines like {example}{or_table})"
    return f"prompt-tuning infer {folder} --input new.jsonl  (lines like the training data's)"
