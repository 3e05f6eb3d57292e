"""Tasks of the Python API: a name, a `Task`, files, rows in memory, or a data frame."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, atomic_write
from prompt_tuning.recipes.choices import user_files

_FIX = "Give another folder."


@runtime_checkable
class Frame(Protocol):
    """The part of a pandas data frame that is used."""

    def to_json(self, *, orient: str, lines: bool, force_ascii: bool) -> str | None:
        """Returns one JSON object per line."""
        ...


Rows = str | FilePath | Sequence[Mapping[str, Any]] | Frame
"""A file or data set that `read_table` accepts, a list of dicts, or a data frame."""


def given_task(
    task: str | Task | Mixture | Rows,
    folder: FilePath,
    *,
    inputs: str | None,
    targets: str | None,
    validation: Rows | None,
    test: Rows | None,
    held_out: float,
    labels: Sequence[str] | None,
    metric: str | Sequence[str] | None,
    overwrite: bool,
) -> str | Task | Mixture:
    """Returns a task unchanged; builds one from rows and templates.

    Rows in memory are written into `folder`, as `rows/train.jsonl` and so on, so that the run can
    be resumed and evaluated from its folder only.

    Raises:
      UserError: a template is missing, rows aren't JSON-serializable, or the folder has others.
    """
    if isinstance(task, Task | Mixture) or (isinstance(task, str) and inputs is targets is None):
        if isinstance(task, str) and as_path(task).is_file():
            raise _templates_missing(task)
        return task
    if inputs is None or targets is None:
        raise _templates_missing(task if isinstance(task, str | FilePath) else "the rows")
    splits = {"train": task, "validation": validation, "test": test}
    files = {
        split: _file_of(rows, folder / "rows" / f"{split}.jsonl", overwrite=overwrite)
        for split, rows in splits.items()
        if rows is not None
    }
    return user_files(
        train_file=files["train"],
        validation_file=files.get("validation"),
        test_file=files.get("test"),
        input_template=inputs,
        target_template=targets,
        held_out=held_out,
        labels=None if labels is None else list(labels),
        metric=metric,
        name=None if isinstance(task, str | FilePath) else folder.name,
    )


def _templates_missing(what: str | FilePath) -> UserError:
    return UserError(
        f"{what} needs templates to become text; give both, such as inputs='{{text}}' and "
        "targets='{label}'."
    )


def _file_of(rows: Rows, path: FilePath, *, overwrite: bool) -> str:
    """Returns the file of rows; rows in memory are first written to `path`."""
    if isinstance(rows, str | FilePath):
        return str(rows)
    text = _as_lines(rows).encode()
    if path.is_file() and path.read_bytes() != text and not overwrite:
        raise UserError(
            f"{path} contains other rows than those given: {path.parent.parent} belongs to "
            "another run. Give another folder, or overwrite=True to start over."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, fix=_FIX) as file:
        file.write(text)
    return str(path)


def _as_lines(rows: Sequence[Mapping[str, Any]] | Frame) -> str:
    if isinstance(rows, Frame):
        return (rows.to_json(orient="records", lines=True, force_ascii=False) or "").strip() + "\n"
    lines = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise UserError(f"Row {number} is {row!r}; expected a dict of values by column.")
        try:
            lines.append(json.dumps(dict(row), ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise UserError(f"Row {number} can't be written as JSON: {error}.") from error
    return "".join(f"{line}\n" for line in lines)
