"""XSum (Narayan et al., 2018) and CNN/DailyMail (See et al., 2017): news articles to summaries.

Registered as `xsum` (only the article) and `xsum_with_name` (T5's text, "summarize: ..."); the same
for `cnn_dailymail`. Data comes from TFDS (XSum's articles must be put into its manual folder), or
from a folder of jsonl files with TFDS's fields: `xsum/train.jsonl`, `val.jsonl`, `test.jsonl`.
"""

import functools
from collections.abc import Iterable

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import Row, text_field
from prompt_tuning.data.sources import JsonlSource, Source
from prompt_tuning.data.tasks.tables import (
    Text,
    existing_folder,
    is_tfds,
    register_both,
    tfds_source,
)
from prompt_tuning.data.tasks.task import Example

_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


def _source(name: str, version: str, data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        return tfds_source(data_dir, name, version)
    folder = existing_folder(data_dir, f"{name}/train.jsonl") / name
    return JsonlSource(files={split: folder / file for split, file in _FILES.items()})


def _register(name: str, *, version: str, article: str, summary: str, target_length: int) -> None:
    """Registers a TFDS dataset, of this version or newer, given the names of its two fields."""

    def render(row: Row, training: bool, text: Text) -> Iterable[Example]:
        del training
        yield Example(inputs=text(row), targets=text_field(row, summary))

    register_both(
        name,
        "summarize:",
        functools.partial(text_field, field=article),
        render,
        source=functools.partial(_source, name, version),
        metrics=(metrics.rouge,),
        splits=tuple(_FILES),
        lengths={"inputs": 512, "targets": target_length},  # fits almost every summary
    )


_register("xsum", version="1.1.0", article="document", summary="summary", target_length=64)
_register(
    "cnn_dailymail",
    version="3.1.0",
    article="article",
    summary="highlights",
    target_length=128,
)
