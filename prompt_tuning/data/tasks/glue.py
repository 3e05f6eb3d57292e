"""GLUE's nine tasks and its diagnostics (Wang et al., 2018), and the MRPC and QQP transfer pair.

A table lists the differences between the tasks, and a loop registers them: as `glue_mrpc` (without
the task's name in the text, as in the paper) and `glue_mrpc_with_name` (T5's own text).

`glue_qqp_from_mrpc` is QQP for zero-shot answers of a prompt trained on MRPC (Lester et al., 2021,
section 5): QQP's text with MRPC's label words. `glue_mrpc_from_qqp` is the reverse. The prompt is
selected on the development set of the task it was trained on:

    prompt-tuning train --gin_file=tasks/glue_mrpc.gin --gin.MODEL_DIR=runs/mrpc ...
    prompt-tuning evaluate runs/mrpc --gin_file=tasks/glue_qqp_from_mrpc.gin
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompt_tuning.data import metrics
from prompt_tuning.data.sources import Source, TsvSource
from prompt_tuning.data.tasks import glue_rows
from prompt_tuning.data.tasks.tables import (
    Text,
    existing_folder,
    fields,
    first_file,
    is_tfds,
    register_both,
    tfds_source,
)
from prompt_tuning.data.tasks.task import Example, Metric

MINIMUM_TFDS_VERSION = "1.0.0"

_TSV = {"train": ("train.tsv",), "validation": ("dev.tsv",), "test": ("test.tsv",)}
_COLA_COLUMNS = ("source", "label", "star", "sentence")
_NLI = ("entailment", "neutral", "contradiction")
_RTE = ("entailment", "not_entailment")
_WNLI = ("not_entailment", "entailment")
_EQUIVALENT = ("not_equivalent", "equivalent")
_DUPLICATE = ("not_duplicate", "duplicate")
_SCORES = tuple(f"{tenths / 10:.1f}" for tenths in range(0, 51, 2))
"""STS-B's similarities in T5's format: 0.0, 0.2, ..., 5.0."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A row of the table.

    Attributes:
      name: the TFDS config and the end of our task names.
      folder: the official folder.
      columns: the official file's column of each text field, or its names by release.
      words: the label words, in the order of the official indices.
      label: the column of the label.
      flatten: converts the official file's columns to TFDS's fields.
      render: converts a row to examples.
      files: the official file names of each split, by release.
      headers: the columns of files without a header line, by split.
      skip_short: whether to skip rows with missing columns, as in TFDS.
      t5_name: the task's name in T5's text, if not `name`.
      tfds_config: the TFDS config, if not `name`.
      tfds_splits: TFDS's names of splits that differ from ours.
    """

    name: str
    folder: str
    columns: glue_rows.Columns
    words: tuple[str, ...]
    label: str = "label"
    metrics: tuple[Metric, ...] = (metrics.accuracy,)
    flatten: Callable[..., Iterable[dict[str, Any]]] = glue_rows.flatten
    render: Callable[..., Iterable[Example]] = glue_rows.render
    files: Mapping[str, Sequence[str]] = field(default_factory=lambda: _TSV)
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skip_short: bool = False
    t5_name: str = ""
    tfds_config: str = ""
    tfds_splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> Text:
        """T5's text: the fields in alphabetical order."""
        return fields(*sorted(self.columns))


def _mnli(section: str, *, name: str, train: bool) -> _Entry:
    held_out = {"validation": "dev", "test": "test"}
    files = {split: (f"{file}_{section}.tsv",) for split, file in held_out.items()}
    return _Entry(
        name=name,
        folder="MNLI",
        columns={"hypothesis": "sentence2", "premise": "sentence1"},
        words=_NLI,
        label="gold_label",
        files={"train": _TSV["train"], **files} if train else files,
        t5_name="mnli",
        tfds_config="mnli",
        tfds_splits={split: f"{split}_{section}" for split in held_out},
    )


_SENTENCES = {"sentence1": "sentence1", "sentence2": "sentence2"}

_TABLE = (
    _Entry(
        name="cola",
        folder="CoLA",
        columns={"sentence": "sentence"},
        words=("unacceptable", "acceptable"),
        headers={"train": _COLA_COLUMNS, "validation": _COLA_COLUMNS},
        metrics=(
            functools.partial(metrics.matthews_correlation, labels=("unacceptable", "acceptable")),
        ),
    ),
    _Entry(
        name="sst2",
        folder="SST-2",
        columns={"sentence": "sentence"},
        words=("negative", "positive"),
    ),
    _Entry(
        name="mrpc",
        folder="MRPC",
        columns={"sentence1": "#1 String", "sentence2": "#2 String"},
        words=_EQUIVALENT,
        label="Quality",
        metrics=(functools.partial(metrics.f1, labels=_EQUIVALENT), metrics.accuracy),
    ),
    _Entry(
        name="qqp",
        folder="QQP",
        columns={"question1": "question1", "question2": "question2"},
        words=_DUPLICATE,
        label="is_duplicate",
        skip_short=True,  # three rows of the official file are truncated
        metrics=(functools.partial(metrics.f1, labels=_DUPLICATE), metrics.accuracy),
    ),
    _Entry(
        name="stsb",
        folder="STS-B",
        columns=_SENTENCES,
        words=_SCORES,
        label="score",
        flatten=glue_rows.flatten_similarity,
        render=glue_rows.render_similarity,
        metrics=(metrics.similarity_correlations,),
    ),
    _mnli("matched", name="mnli", train=True),
    _mnli("mismatched", name="mnli_mismatched", train=False),
    _Entry(
        name="qnli",
        folder="QNLI",
        columns={"question": "question", "sentence": "sentence"},
        words=_RTE,
    ),
    _Entry(name="rte", folder="RTE", columns=_SENTENCES, words=_RTE),
    _Entry(name="wnli", folder="WNLI", columns=_SENTENCES, words=_WNLI),
    _Entry(
        name="ax",
        folder="diagnostic",
        columns={"hypothesis": ("sentence2", "Hypothesis"), "premise": ("sentence1", "Premise")},
        words=_NLI,
        label="Label",
        # Only the full file has the labels.
        files={"test": ("diagnostic-full.tsv", "diagnostic.tsv", "AX.tsv")},
        t5_name="mnli",
        metrics=(functools.partial(metrics.matthews_correlation, labels=_NLI),),
    ),
)

GLUE_TASKS = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")
"""The nine tasks of the benchmark; MNLI is scored on its matched section."""


def _source(entry: _Entry, data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        config = entry.tfds_config or entry.name
        return tfds_source(
            data_dir, f"glue/{config}", MINIMUM_TFDS_VERSION, splits=entry.tfds_splits
        )
    folder = existing_folder(data_dir, "CoLA/, SST-2/, ... with GLUE's official tsv files")
    folder = folder / entry.folder
    expand = functools.partial(
        entry.flatten, columns=entry.columns, label=entry.label, words=entry.words
    )
    if entry.name == "mrpc" and (folder / "msr_paraphrase_train.txt").is_file():
        return glue_rows.MrpcSource(folder=folder, expand=expand)
    return TsvSource(
        files={split: first_file(folder, names) for split, names in entry.files.items()},
        columns=entry.headers,
        skip_short=entry.skip_short,
        expand=expand,
    )


def _rewritten(metric: Metric, words: Mapping[str, str]) -> Metric:
    """Returns a metric that also accepts predictions in a task's own words."""
    return lambda examples, predictions: metric(examples, [words.get(p, p) for p in predictions])


def _register(entry: _Entry) -> None:
    register_both(
        f"glue_{entry.name}",
        entry.t5_name or entry.name,
        entry.text,
        entry.render,
        source=functools.partial(_source, entry),
        metrics=entry.metrics,
        labels=entry.words,
        splits=tuple(entry.files),
    )


def _register_transfer(entry: _Entry, trained_on: _Entry) -> None:
    """Registers a task with the label words of another one, for prompts trained on that."""
    words = dict(zip(entry.words, trained_on.words, strict=True))
    register_both(
        f"glue_{entry.name}_from_{trained_on.name}",
        entry.t5_name or entry.name,
        entry.text,
        functools.partial(glue_rows.render, words=words),
        source=functools.partial(_source, entry),
        metrics=tuple(_rewritten(metric, words) for metric in trained_on.metrics),
        labels=trained_on.words,
        splits=("validation",),
    )


_entries = {entry.name: entry for entry in _TABLE}
for _entry in _TABLE:
    _register(_entry)
_register_transfer(_entries["qqp"], _entries["mrpc"])
_register_transfer(_entries["mrpc"], _entries["qqp"])
