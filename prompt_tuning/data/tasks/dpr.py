"""Definite Pronoun Resolution (Rahman and Ng, 2012), additional training data for WSC.

An example is a sentence with a marked pronoun; the answer is the candidate it refers to. The format
is WSC's, so it can be mixed with WSC (`superglue_wsc_and_dpr`) or with all of SuperGLUE
(`superglue_and_dpr`), as in the paper's released code. DPR's held-out sentences, which it calls
its test set, are the validation split here; their answers are public.

Data comes from TFDS, or from a folder with `DPR/train.c.txt` and `DPR/test.c.txt`: five lines per
example, the last of which is empty.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import Row, pronoun_text
from prompt_tuning.data.sources import Source, bad_rows_named
from prompt_tuning.data.tasks.tables import (
    Text,
    existing_folder,
    is_tfds,
    register_both,
    tfds_source,
)
from prompt_tuning.data.tasks.task import Example
from prompt_tuning.data.text_files import read_lines
from prompt_tuning.files import FilePath

_FILES = {"train": "train.c.txt", "validation": "test.c.txt"}
_LINES = ("sentence", "pronoun", "candidates", "answer", "end")


@dataclass(frozen=True, kw_only=True)
class _FiveLineSource:
    """The official files: sentence, pronoun, candidates, the correct one, an empty line."""

    folder: FilePath

    def rows(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        path = self.folder / _FILES[split]
        lines = [line.strip() for line in read_lines(path)]
        for start in range(0, len(lines), len(_LINES)):
            row: dict[str, str] = dict(
                zip(_LINES, lines[start : start + len(_LINES)], strict=False)
            )
            if not row["sentence"]:
                break
            where = f"{path}:{start + 1}"
            with bad_rows_named(where, row):
                candidates = [candidate.strip() for candidate in row["candidates"].split(",")]
                if row["answer"] not in candidates:
                    raise ValueError(f"answer {row['answer']!r} is not one of {candidates}")
                label = str(candidates.index(row["answer"]))
                yield where, {**row, "candidates": candidates, "label": label}


def _source(data_dir: str | None) -> Source:
    if is_tfds(data_dir):
        return tfds_source(
            data_dir, "definite_pronoun_resolution", "1.1.0", splits={"validation": "test"}
        )
    return _FiveLineSource(folder=existing_folder(data_dir, "DPR/train.c.txt") / "DPR")


def _render(row: Row, training: bool, text: Text) -> Iterable[Example]:
    del training
    yield Example(inputs=text(row), targets=row["candidates"][int(row["label"])])


register_both(
    "dpr",
    "wsc:",
    pronoun_text,
    _render,
    source=_source,
    metrics=(metrics.accuracy,),
    splits=tuple(_FILES),
    lengths={"inputs": 512, "targets": 32},
)
