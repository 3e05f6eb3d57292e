"""TinyWorld's tasks for training on one and scoring on another: domain shift and paraphrases.

    tinyworld_qa_{north,south,east}       questions on passages of three lands
    tinyworld_same_{questions,claims}     do two questions, or two claims, mean the same?

They correspond to SQuAD and MRQA, and to QQP and MRPC (Lester et al., 2021, section 5).
`tinyworld/lands.py` generates the rows when they are read.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import Row
from prompt_tuning.data.sources import Source
from prompt_tuning.data.tasks.tables import Text, fields
from prompt_tuning.data.tasks.task import Example, Task, register_task
from prompt_tuning.errors import UserError
from prompt_tuning.tinyworld import lands
from prompt_tuning.tinyworld.world import Region

SIZES: dict[Region, int] = {"train": 2000, "validation": 400, "test": 400}
"""Rows of each split."""

PAIRS: dict[str, tuple[str, tuple[str, ...]]] = {
    "questions": (
        "north",
        (
            "did {person} {verb} {thing}?",
            "was {thing} {participle} by {person}?",
        ),
    ),
    "claims": (
        "south",
        (
            "{person} {past} {thing}.",
            "{thing} was {participle} by {person}.",
            "it was {person} who {past} {thing}.",
        ),
    ),
}
"""Kind of sentences in a pair -> their land and their phrasings."""

_QUESTION_TEXT = fields("question", "passage")


@dataclass(frozen=True, kw_only=True)
class _Generated:
    """Rows generated without a file.

    Attributes:
      name: their origin, for messages.
      stream: returns the endless rows of a split.
    """

    name: str
    stream: Callable[[Region], Iterator[dict[str, Any]]]

    def rows(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if split not in SIZES:
            raise UserError(f"No split {split!r}; expected one of {', '.join(SIZES)}.")
        rows = itertools.islice(self.stream(split), SIZES[split])
        for idx, row in enumerate(rows):
            yield f"{self.name} {split}:{idx + 1}", {"idx": idx, **row}


def _register(
    name: str,
    stream: Callable[[Region], Iterator[dict[str, Any]]],
    render: Callable[[Row, bool], Iterable[Example]],
    text: Text,
    **options: Any,
) -> None:
    def source(data_dir: str | None) -> Source:
        if data_dir is not None:
            raise UserError(
                f"The rows of {name} are generated, not read; leave out DATA_DIR ({data_dir})."
            )
        return _Generated(name=name, stream=stream)

    lengths = {"inputs": 64, "targets": 4}
    splits = tuple(SIZES)
    task = Task(
        name=name,
        source=source,
        render=render,
        text=text,
        splits=splits,
        lengths=lengths,
        **options,
    )
    register_task(task)


def _render_question(row: Row, training: bool) -> Iterable[Example]:
    del training
    yield Example(
        inputs=_QUESTION_TEXT(row),
        targets=row["answer"],
        metadata={"idx": row["idx"], "answers": [row["answer"]]},
    )


def _render_pair(text: Text, row: Row, training: bool) -> Iterable[Example]:
    del training
    yield Example(inputs=text(row), targets=row["label"], metadata={"idx": row["idx"]})


for _land in lands.LANDS:
    _register(
        f"tinyworld_qa_{_land}",
        functools.partial(lands.questions, _land),
        _render_question,
        _QUESTION_TEXT,
        metrics=(metrics.squad,),
    )
for _kind, (_land, _phrasings) in PAIRS.items():
    _shown = {"questions": "question", "claims": "sentence"}[_kind]
    _text = fields(**{f"{_shown}1": "first", f"{_shown}2": "second"})
    _register(
        f"tinyworld_same_{_kind}",
        functools.partial(lands.pairs, _land, phrasings=_phrasings),
        functools.partial(_render_pair, _text),
        _text,
        metrics=(metrics.accuracy,),
        labels=("False", "True"),
    )
