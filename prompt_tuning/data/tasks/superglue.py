"""SuperGLUE's eight tasks and two diagnostics (Wang et al., 2019), and TinyWorld's eight.

A table lists the differences between the tasks, and a loop registers them: as `superglue_rte`
(without the task's name in the text, as in the paper), `superglue_rte_with_name` (T5's own text),
and the same for `tinyworld_rte`, whose generated files have SuperGLUE's layout and are read by the
same code. `superglue_rows.py` converts rows to examples.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prompt_tuning.data import metrics, preprocessors
from prompt_tuning.data.preprocessors import Row
from prompt_tuning.data.sources import JsonlSource, Source
from prompt_tuning.data.tasks import superglue_rows
from prompt_tuning.data.tasks.tables import (
    existing_folder,
    fields,
    is_tfds,
    register_both,
    tfds_source,
)
from prompt_tuning.data.tasks.task import Example, Metric
from prompt_tuning.files import FilePath
from prompt_tuning.tinyworld import generate

MINIMUM_TFDS_VERSION = "1.0.2"
"""Earlier versions list ReCoRD's entities in no fixed order."""

_HOLDING = "BoolQ/, CB/, ... with the official train.jsonl, val.jsonl and test.jsonl"
_BOOLEAN = {False: "False", True: "True"}
_ENTAILMENT = {"entailment": "entailment", "not_entailment": "not_entailment"}
_OFFICIAL_FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A row of the table.

    Attributes:
      name: the TFDS config and the middle of our task names.
      folder: the official folder.
      text: returns the inputs without the task's name.
      words: the label words by the official file's label.
      t5_name: the task's name in T5's text, if not `name`.
      answer_length: tokens of the longest answer; None if answers are label words.
    """

    name: str
    folder: str
    text: Callable[[Row], str]
    words: superglue_rows.LabelWords
    metrics: tuple[Metric, ...] = (metrics.accuracy,)
    t5_name: str = ""
    tfds_config: str = ""
    flatten: Callable[..., Iterable[superglue_rows.JsonRow]] = superglue_rows.flatten_plain
    render: Callable[..., Iterable[Example]] = superglue_rows.render_classification
    answer_length: int | None = None
    diagnostic: bool = False


_CB_LABELS = ("entailment", "contradiction", "neutral")

_TABLE = (
    _Entry(
        name="boolq",
        folder="BoolQ",
        text=fields("passage", "question"),
        words=_BOOLEAN,
    ),
    _Entry(
        name="cb",
        folder="CB",
        text=fields("hypothesis", "premise"),
        words={label: label for label in _CB_LABELS},
        metrics=(metrics.accuracy, functools.partial(metrics.macro_f1, labels=_CB_LABELS)),
    ),
    _Entry(
        name="copa",
        folder="COPA",
        text=fields("choice1", "choice2", "premise", "question"),
        words={0: "choice1", 1: "choice2"},
    ),
    _Entry(
        name="multirc",
        folder="MultiRC",
        text=preprocessors.multirc_text,
        words=_BOOLEAN,
        metrics=(metrics.multirc,),
        flatten=superglue_rows.flatten_multirc,
        render=superglue_rows.render_multirc,
    ),
    _Entry(
        name="record",
        folder="ReCoRD",
        text=preprocessors.record_text,
        words={},
        metrics=(metrics.squad,),
        answer_length=32,
        flatten=superglue_rows.flatten_record,
        render=superglue_rows.render_record,
    ),
    _Entry(
        name="rte",
        folder="RTE",
        text=fields("hypothesis", "premise"),
        words=_ENTAILMENT,
    ),
    _Entry(
        name="wic",
        folder="WiC",
        text=fields("sentence1", "sentence2", "word"),
        words=_BOOLEAN,
    ),
    _Entry(
        name="wsc",
        folder="WSC",
        text=preprocessors.wsc_text,
        words=_BOOLEAN,
        metrics=(metrics.wsc,),
        answer_length=32,
        t5_name="wsc:",
        tfds_config="wsc.fixed",
        flatten=superglue_rows.flatten_wsc,
        render=superglue_rows.render_wsc,
    ),
    _Entry(
        name="axb",
        folder="AX-b",
        text=fields(hypothesis="sentence2", premise="sentence1"),
        words=_ENTAILMENT,
        metrics=(functools.partial(metrics.matthews_correlation, labels=tuple(_ENTAILMENT)),),
        t5_name="rte",
        diagnostic=True,
    ),
    _Entry(
        name="axg",
        folder="AX-g",
        text=fields("hypothesis", "premise"),
        words=_ENTAILMENT,
        t5_name="rte",
        diagnostic=True,
    ),
)

SUPERGLUE_TASKS = tuple(entry.name for entry in _TABLE if not entry.diagnostic)
"""The eight tasks of the benchmark, without diagnostics."""


def _official_folder(entry: _Entry, folder: FilePath) -> JsonlSource:
    files = {"test": f"{entry.folder}.jsonl"} if entry.diagnostic else _OFFICIAL_FILES
    return JsonlSource(
        files={split: folder / entry.folder / file for split, file in files.items()},
        expand=lambda row: entry.flatten(row, entry.words),
    )


def _superglue_source(entry: _Entry, data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        name = f"super_glue/{entry.tfds_config or entry.name}"
        return tfds_source(data_dir, name, MINIMUM_TFDS_VERSION)
    return _official_folder(entry, existing_folder(data_dir, _HOLDING))


def _tinyworld_source(entry: _Entry, data_dir: str | None) -> Source:
    """Returns the generated files, with "tinyworld:ROWS" as many training rows, or a folder's."""
    rows = (data_dir or "").removeprefix("tinyworld:")
    if data_dir is None:
        folder = generate.tinyworld_folder()
    elif rows != data_dir and rows.isdecimal() and int(rows):
        folder = generate.tinyworld_folder(training_rows=int(rows))
    else:
        folder = existing_folder(data_dir, _HOLDING, instead="tinyworld:ROWS")
    return _official_folder(entry, folder)


def _register(entry: _Entry, benchmark: str, source: Callable[..., Source]) -> None:
    register_both(
        f"{benchmark}_{entry.name}",
        entry.t5_name or entry.name,
        entry.text,
        entry.render,
        source=functools.partial(source, entry),
        metrics=entry.metrics,
        labels=None if entry.answer_length else tuple(entry.words.values()),
        splits=("test",) if entry.diagnostic else tuple(_OFFICIAL_FILES),
        lengths={"inputs": 512, "targets": entry.answer_length or 8},
    )


for _entry in _TABLE:
    _register(_entry, "superglue", _superglue_source)
    if not _entry.diagnostic:
        _register(_entry, "tinyworld", _tinyworld_source)
