"""Files of SuperGLUE and GLUE submissions: one per task, with its labels and row count.

The formats are those written by the benchmarks' own toolkit (jiant 1.x, `strict_glue_format`); the
row counts are those of the official test splits. `submission.py` writes and checks the files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LOWER = {"False": "false", "True": "true"}
_TITLE = {"False": "False", "True": "True"}
_ZERO_ONE = {"False": 0, "True": 1}
_RTE = {"entailment": "entailment", "not_entailment": "not_entailment"}
_NLI = {label: label for label in ("entailment", "neutral", "contradiction")}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of a submission.

    Attributes:
      file: its name in the zip.
      rows: number of examples in the official test split.
      labels: our label word -> official label; empty if the answer is free text.
      kind: "label" (a line per example), "multirc" (a line per paragraph), "record" (the text of
        the answer), "wsc" (our answer is text, the official one a label), or "score" (a number
        from 0 to 5).
    """

    file: str
    rows: int
    labels: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "label"

    @property
    def official_labels(self) -> tuple[Any, ...]:
        """The valid labels in the file."""
        return tuple(self.labels.values())


SUPERGLUE: Mapping[str, Entry] = {
    "boolq": Entry(file="BoolQ.jsonl", rows=3245, labels=_LOWER),
    "cb": Entry(file="CB.jsonl", rows=250, labels=_NLI),
    "copa": Entry(file="COPA.jsonl", rows=500, labels={"choice1": 0, "choice2": 1}),
    "multirc": Entry(file="MultiRC.jsonl", rows=9693, labels=_ZERO_ONE, kind="multirc"),
    "record": Entry(file="ReCoRD.jsonl", rows=10000, kind="record"),
    "rte": Entry(file="RTE.jsonl", rows=3000, labels=_RTE),
    "wic": Entry(file="WiC.jsonl", rows=1400, labels=_LOWER),
    "wsc": Entry(file="WSC.jsonl", rows=146, labels=_TITLE, kind="wsc"),
    "axb": Entry(file="AX-b.jsonl", rows=1104, labels=_RTE),
    "axg": Entry(file="AX-g.jsonl", rows=356, labels=_RTE),
}
"""SuperGLUE's files, by the middle of our task names; a row is {"idx": ..., "label": ...}."""


def _numbered(*words: str) -> dict[str, str]:
    return {word: str(number) for number, word in enumerate(words)}


GLUE: Mapping[str, Entry] = {
    "cola": Entry(file="CoLA.tsv", rows=1063, labels=_numbered("unacceptable", "acceptable")),
    "sst2": Entry(file="SST-2.tsv", rows=1821, labels=_numbered("negative", "positive")),
    "mrpc": Entry(file="MRPC.tsv", rows=1725, labels=_numbered("not_equivalent", "equivalent")),
    "qqp": Entry(file="QQP.tsv", rows=390965, labels=_numbered("not_duplicate", "duplicate")),
    "stsb": Entry(file="STS-B.tsv", rows=1379, kind="score"),
    "mnli": Entry(file="MNLI-m.tsv", rows=9796, labels=_NLI),
    "mnli_mismatched": Entry(file="MNLI-mm.tsv", rows=9847, labels=_NLI),
    "qnli": Entry(file="QNLI.tsv", rows=5463, labels=_RTE),
    "rte": Entry(file="RTE.tsv", rows=3000, labels=_RTE),
    "wnli": Entry(file="WNLI.tsv", rows=146, labels=_numbered("not_entailment", "entailment")),
    "ax": Entry(file="AX.tsv", rows=1104, labels=_NLI),
}
"""GLUE's files, with the same keys; a row is the index and the prediction, tab-separated."""

GLUE_HEADER = ("index", "prediction")

LEADERBOARDS: Mapping[str, Mapping[str, Entry]] = {"superglue": SUPERGLUE, "glue": GLUE}

DIAGNOSTICS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "superglue": {"rte": ("axb", "axg")},
    "glue": {"mnli": ("mnli_mismatched", "ax")},
}
"""Tasks -> test sets that the benchmarks require predictions for without training on them."""
