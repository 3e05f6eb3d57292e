"""Facts and warnings about the data of a run, to read before training starts.

    for line in findings(tasks, train_splits, validation_splits): print(line)

The first line of a task counts its examples and labels. The others warn of possible mistakes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from prompt_tuning.data.sources import Source
from prompt_tuning.data.tasks.task import Task, is_withheld
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.user_files import UserFiles
from prompt_tuning.errors import listed


def findings(
    tasks: Sequence[Task],
    train: Sequence[TokenizedSplit],
    scored: Sequence[TokenizedSplit],
    data_dir: str | None = None,
) -> list[str]:
    """Returns lines about each task; warnings start with "Warning: ".

    Args:
      tasks: the tasks.
      train: the training split of each task.
      scored: the split of each task on which the best prompt is selected.
      data_dir: the folder of the sources, as for `Task.source`.
    """
    return [
        line
        for task, *splits in zip(tasks, train, scored, strict=True)
        for line in _findings(task, task.source(data_dir), *splits)
    ]


def _findings(
    task: Task, source: Source, train: TokenizedSplit, scored: TokenizedSplit
) -> Iterable[str]:
    counts = Counter(
        example["targets"] for example in train.metadata if task.labels and not is_withheld(example)
    )
    warnings = [*_label_warnings(task, counts)]
    files = {scored.split: ()}
    if isinstance(source, UserFiles):
        files = source.files
        warnings += [*source.notes(), *_number_warnings(counts), *_overlap(train, scored)]
    kind = f"{scored.split} examples" if scored.split in files else "held out for validation"
    labels = f"; labels: {listed(_counted(counts))}" if counts else ""
    yield f"{task.name}: {len(train):,} training examples, {len(scored):,} {kind}{labels}."
    for line in warnings:
        yield f"Warning: {line}"


def _label_warnings(task: Task, counts: Counter[str]) -> Iterable[str]:
    if len(counts) == 1:
        yield f"{task.name} has one label only, {next(iter(counts))!r}: there is nothing to learn."
    for alike in _alike(counts):
        yield (
            f"The labels {' and '.join(map(repr, alike))} differ only in case or spaces; if they "
            "mean the same, spell them alike."
        )


def _number_warnings(counts: Counter[str]) -> Iterable[str]:
    if counts and all(label.removeprefix("-").isdecimal() for label in counts):
        yield (
            f"The labels are numbers ({listed(sorted(counts))}), which mean less to a model than "
            "words; map them with user_files.label_words, such as {0: 'negative', 1: "
            "'positive'}."
        )


def _overlap(train: TokenizedSplit, scored: TokenizedSplit) -> Iterable[str]:
    """Yields a warning about examples that are in both splits."""
    seen = set(_contents(train))
    both = sum(content in seen for content in _contents(scored))
    if both:
        which = "All" if both == len(scored) else f"{both:,} of"
        yield (
            f"{which} {len(scored):,} examples of {scored.split} are also training examples, so "
            "the score doesn't show how well the prompt generalizes."
        )


def _counted(counts: Counter[str]) -> list[str]:
    return [f"{label} ({count:,})" for label, count in counts.most_common()]


def _alike(labels: Iterable[str]) -> list[list[str]]:
    """Returns the groups of labels that differ only in case and spaces."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault("".join(label.casefold().split()), []).append(label)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _contents(split: TokenizedSplit) -> Iterable[int]:
    """Yields a hash of each example's tokens."""
    for inputs, targets in zip(_rows(split.inputs), _rows(split.targets), strict=True):
        yield hash((inputs, targets))


def _rows(ragged: Ragged) -> Iterable[bytes]:
    return (ragged[row].tobytes() for row in range(len(ragged)))
