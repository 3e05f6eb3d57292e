"""Shortens one column of inputs that are too long, so that the rest of their text is unchanged.

Otherwise an input is truncated at its end, which may be the question.
"""

import bisect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from prompt_tuning.data.preprocessors import Row
from prompt_tuning.data.tasks.task import Example, Task
from prompt_tuning.data.vocabularies import Vocabulary

_LONG_WORD = 30
"""Maximum characters of a word that isn't split."""


def fit_inputs(task: Task, vocabulary: Vocabulary, limit: int) -> Task:
    """Returns the task with its column `shorten` cut at the end of a word if inputs are too long.

    Args:
      task: the task; returned unchanged without such a column.
      vocabulary: counts the tokens.
      limit: maximum length of inputs, in tokens with end of sequence.
    """
    column = task.shorten
    if column is None:
        return task

    def fits(texts: Iterable[str]) -> bool:
        return all(len(vocabulary.encode(text)) < limit for text in texts)

    def render(row: Row, training: bool) -> Iterable[Example]:
        examples = list(task.render(row, training))
        short = _shortened(
            row, column, lambda row: [each.inputs for each in task.render(row, training)], fits
        )
        if short is row:
            return examples
        return [replace(each, shortened=True) for each in task.render(short, training)]

    def text(row: Row) -> str:
        return task.inputs_of(_shortened(row, column, lambda row: [task.inputs_of(row)], fits))

    return replace(task, render=render, text=text, shorten=None)


def _shortened(
    row: Row,
    column: str,
    texts: Callable[[Row], list[str]],
    fits: Callable[[list[str]], bool],
) -> Row:
    """Returns the row if its texts fit, else with less of the column, possibly nothing.

    Raises:
      KeyError: there is no such column.
      ValueError: it isn't text, or isn't a part of the inputs.
    """
    whole = texts(row)
    value: Any = row[column]
    if fits(whole):
        return row
    if not isinstance(value, str):
        raise ValueError(
            f"column {column!r}, which data.shorten names, is {value!r}; expected text"
        )
    if value.strip() and texts({**row, column: ""}) == whole:
        raise ValueError(f"column {column!r}, which data.shorten names, is not part of the inputs")
    # The longest cut that fits, by bisection: tokens grow with words.
    cuts = [0, *_cuts(value)]
    first_too_long = bisect.bisect_left(
        cuts, True, lo=1, key=lambda cut: not fits(texts({**row, column: value[:cut]}))
    )
    return {**row, column: value[: cuts[first_too_long - 1]]}


def _cuts(text: str) -> Iterator[int]:
    """Yields the ends of words, and every place in long ones, as in scripts without spaces."""
    for word in re.finditer(r"\S+", text):
        if len(word[0]) > _LONG_WORD:
            yield from range(word.start() + 1, word.end())
        yield word.end()
