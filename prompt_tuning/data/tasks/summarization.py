"""XSum (Narayan et al., 2018) and CNN/DailyMail (See et al., 2017): news articles to summaries.

Registered as `xsum` (the article alone) and `xsum_with_name` (T5's text, "summarize: ..."), and
likewise `cnn_dailymail`. From TFDS (XSum's articles go into its manual folder first), or
from a folder of jsonl files with its fields: `xsum/train.jsonl`, `val.jsonl`, `test.jsonl`.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import Row, text_field
from prompt_tuning.data.sources import JsonlSource, Source
from prompt_tuning.data.tasks.tables import Text, existing_folder, is_tfds, named, tfds_source
from prompt_tuning.data.tasks.task import Example, Task, register_task

_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What differs between the tasks.

    Attributes:
      name: the TFDS data set, the folder and our task's name.
      version: the least version of the TFDS data set.
      article: the field to summarize.
      summary: the field with its summary.
      target_length: tokens that hold nearly every summary.
    """

    name: str
    version: str
    article: str
    summary: str
    target_length: int


_TABLE = (
    _Entry(name="xsum", version="1.1.0", article="document", summary="summary", target_length=64),
    _Entry(
        name="cnn_dailymail",
        version="3.1.0",
        article="article",
        summary="highlights",
        target_length=128,
    ),
)


def _source(entry: _Entry, data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        return tfds_source(data_dir, entry.name, entry.version)
    folder = existing_folder(data_dir, f"{entry.name}/train.jsonl") / entry.name
    return JsonlSource(files={split: folder / name for split, name in _FILES.items()})


def _render(row: Row, training: bool, *, text: Text, summary: str) -> Iterable[Example]:
    del training
    yield Example(inputs=text(row), targets=text_field(row, summary))


def _register(entry: _Entry) -> None:
    article = functools.partial(text_field, field=entry.article)
    for suffix, text in (("", article), ("_with_name", named(article, "summarize:"))):
        register_task(
            Task(
                name=f"{entry.name}{suffix}",
                source=functools.partial(_source, entry),
                render=functools.partial(_render, text=text, summary=entry.summary),
                text=text,
                metrics=(metrics.rouge,),
                splits=tuple(_FILES),
                lengths={"inputs": 512, "targets": entry.target_length},
            )
        )


for _entry in _TABLE:
    _register(_entry)
