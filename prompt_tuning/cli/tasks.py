"""`prompt-tuning tasks`: lists tasks and mixtures, with sizes if known."""

import textwrap
from collections.abc import Iterator, Sequence

from prompt_tuning.cli.parsers import parse
from prompt_tuning.data.mixtures import MIXTURES
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tasks.sizes import SIZES

_SPLITS = ("train", "validation", "test")
_NAMED = "_with_name"
_LONGEST_ANSWERS = 40


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints one line per task."""
    parse("tasks", argv)

    rows = [("task", *_SPLITS, "inputs", "targets", "answers"), *_task_rows(list_tasks())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers, answers in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:-1], strict=True)]
        print(f"{name:{widths[0]}}  {'  '.join(cells)}  {answers}".rstrip())
    print("\nNumber of rows of each split: - if it doesn't exist, ? if its size is unknown.")
    print("Inputs and targets: maximum lengths in tokens, unless TASK_FEATURE_LENGTHS is set.")
    print(f"* also as NAME{_NAMED}: with T5's name of the task in the text.")
    print("\nmixture")
    for name, members in MIXTURES.items():
        if not name.endswith(_NAMED):
            both = "*" if f"{name}{_NAMED}" in MIXTURES else ""
            text = f"{len(members)} tasks: {', '.join(members)}"
            indent = f"{name + both:{widths[0]}}  "
            print(
                textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=" " * len(indent))
            )
    print("\nSee examples:  prompt-tuning show tinyworld_rte -n 3")


def _task_rows(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the cells of each task, except tasks included in another's row."""
    for name in names:
        if name.removesuffix(_NAMED) != name and name.removesuffix(_NAMED) in names:
            continue
        task = get_task(name)
        sizes = SIZES.get(name, {})
        counts = [
            (f"{sizes[split]:,}" if split in sizes else "?") if split in task.splits else "-"
            for split in _SPLITS
        ]
        both = "*" if f"{name}{_NAMED}" in names else ""
        lengths = [str(task.lengths[feature]) for feature in ("inputs", "targets")]
        yield (f"{name}{both}", *counts, *lengths, _answers(task.labels))


def _answers(labels: Sequence[str] | None) -> str:
    if labels is None:
        return "free text"
    text = ", ".join(labels)
    if len(text) <= _LONGEST_ANSWERS:
        return text
    return f"{labels[0]}, ..., {labels[-1]} ({len(labels)} labels)"
