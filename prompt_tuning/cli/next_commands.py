"""What to do with a finished run: commands that fit its task."""

import json
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.data.tasks.task import Task


def infer_command(folder: str | Path, tasks: Sequence[Task]) -> str:
    """Returns a command that answers new questions with a run, with input of the right form.

    Args:
      folder: the run folder.
      tasks: what the run was trained on.
    """
    columns = tasks[0].columns if len(tasks) == 1 else ()
    if len(columns) == 1:
        return f"prompt-tuning infer {folder} --input lines.txt  (or a CSV file's {columns[0]!r})"
    if columns:
        example = json.dumps(dict.fromkeys(columns, "..."))
        return (
            f"prompt-tuning infer {folder} --input new.jsonl  (lines like {example}, or a CSV file)"
        )
    return f"prompt-tuning infer {folder} --input new.jsonl  (lines like the training data's)"
