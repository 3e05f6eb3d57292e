"""Leaderboard submissions from predictions: a zip of jsonl (SuperGLUE) or tsv files (GLUE).

`write_submission` converts the rows of `prompt-tuning evaluate --predictions` to official labels,
checks them against the official schema and writes the zip; `check_submission` checks an existing
one. The tables are in `tables.py`.
"""

import csv
import io
import itertools
import json
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.data.postprocessors import names_referent
from prompt_tuning.data.tables import json_lines
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path, atomic_write
from prompt_tuning.json_text import parse_json, shown
from prompt_tuning.leaderboards.tables import GLUE_HEADER, LEADERBOARDS, Entry

Prediction = Mapping[str, Any]
"""The "task", the metadata of an example (such as "idx") and the "prediction"."""

# A zip may also be damaged inside, encrypted, or compressed in a format unknown to Python.
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)

_INDEX = re.compile("[0-9]{1,9}")

_RANK = (
    "Predict with --gin.predict.method=rank, which always answers with one of the task's labels."
)


def read_predictions(paths: Iterable[str | Path]) -> Iterator[Prediction]:
    """Yields the rows of files written by `evaluate --predictions`.

    Raises:
      UserError: a file can't be read, or a row isn't a prediction; states the file and line.
    """
    for path in paths:
        for where, row in json_lines(as_path(path)):
            # Indices in official files are integers or strings.
            idx = row.get("idx")
            if isinstance(idx, str) and _INDEX.fullmatch(idx):
                row["idx"] = int(idx)
            kinds = {"task": str, "idx": int | dict, "prediction": str}
            wrong = [name for name, kind in kinds.items() if not isinstance(row.get(name), kind)]
            if wrong:
                found = (
                    f"{wrong[0]!r} is {row[wrong[0]]!r}" if wrong[0] in row else f"no {wrong[0]!r}"
                )
                raise UserError(
                    f"{where}: {found}; expected the rows that prompt-tuning evaluate "
                    "RUN --split test --predictions FILE writes."
                )
            yield row


def leaderboard_task(benchmark: str, task: str) -> str | None:
    """Returns the table's key for one of our tasks, or None if the leaderboard has no file for it.

    A variant with T5's task name in the input (`superglue_rte_with_name`) has the same key.
    """
    name = re.fullmatch(rf"{benchmark}_(\w+?)(_with_name)?", task)
    return name[1] if name and name[1] in LEADERBOARDS[benchmark] else None


def write_submission(
    path: Path, benchmark: str, predictions: Iterable[Prediction], *, partial: bool = False
) -> dict[str, int]:
    """Writes a submission.

    Args:
      path: the zip; an existing file is replaced.
      benchmark: "superglue" or "glue".
      predictions: of the complete official test split of every task.
      partial: allow missing tasks, although the leaderboard rejects such a submission.

    Returns:
      The number of predictions by file name.

    Raises:
      UserError: a task isn't part of the benchmark or is missing; a prediction isn't one of the
        labels, is missing or is duplicated; or the zip can't be written.
    """
    rows: dict[str, list[Prediction]] = defaultdict(list)
    for row in predictions:
        name = leaderboard_task(benchmark, row["task"])
        if name is None:
            raise UserError(
                f"The task {row['task']!r} has no file in a {benchmark} submission; expected "
                f"{', '.join(f'{benchmark}_{known}' for known in LEADERBOARDS[benchmark])}."
            )
        rows[name].append(row)
    table = LEADERBOARDS[benchmark]
    contents = {table[name].file: _content(table[name], rows[name]) for name in table if rows[name]}
    counts = _check_files(benchmark, contents, partial)
    with (
        atomic_write(path, fix="Give another path with --output.") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return counts


def missing_files(benchmark: str, files: Iterable[str]) -> list[str]:
    """Returns the files missing from a submission."""
    return [e.file for e in LEADERBOARDS[benchmark].values() if e.file not in set(files)]


def check_submission(path: Path, benchmark: str, *, partial: bool = False) -> dict[str, int]:
    """Reads a submission and returns the number of predictions in each file.

    Raises:
      UserError: it isn't a zip, contains an unexpected file, or a file violates the official
        schema; states the file and line.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                if names.count(name) > 1:
                    raise UserError(f"{path} contains {name!r} twice; create the zip again.")
            contents = {name: archive.read(name).decode() for name in names}
    except (*_UNREADABLE, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} can't be read as a zip of text files ({reason}).") from error
    return _check_files(benchmark, contents, partial)


def _content(entry: Entry, rows: Sequence[Prediction]) -> str:
    """Returns the content of a task's file, with rows in the order of the official index."""
    labels: dict[tuple[int, ...], Any] = {}
    for row in rows:
        index = _index(entry, row)
        if index in labels:
            raise UserError(f"{row['task']}: idx {row['idx']} is predicted twice; give it once.")
        labels[index] = _official_label(entry, row)
    pairs = sorted(labels.items())
    if entry.file.endswith(".tsv"):
        return "".join("\t".join(map(str, row)) + "\n" for row in [GLUE_HEADER, *_indexed(pairs)])
    if entry.kind == "multirc":
        lines: Iterable[Any] = _multirc_lines(pairs)
    else:
        lines = [{"idx": index, "label": label} for index, label in _indexed(pairs)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _indexed(pairs: Iterable[tuple[tuple[int, ...], Any]]) -> list[tuple[int, Any]]:
    return [(index[-1], label) for index, label in pairs]


def _index(entry: Entry, row: Prediction) -> tuple[int, ...]:
    """Returns the official index: ReCoRD's query; MultiRC's paragraph, question and answer."""
    idx = row["idx"]
    try:
        if entry.kind == "multirc":
            return (int(idx["paragraph"]), int(idx["question"]), int(idx["answer"]))
        return (int(idx["query"] if entry.kind == "record" else idx),)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{row['task']}: idx is {idx!r}, not the official index.") from error


def _official_label(entry: Entry, row: Prediction) -> Any:
    said = row["prediction"]
    if entry.kind == "record":
        return said
    if entry.kind == "wsc":
        if not isinstance(candidate := row.get("candidate"), str):
            raise UserError(
                f"{row['task']}: the row of idx {row['idx']} has no 'candidate', the noun phrase "
                "that the pronoun may refer to; predict the test split again."
            )
        return entry.labels[str(bool(names_referent(said, candidate)))]
    if entry.kind == "score":
        if not _is_score(said):
            raise UserError(
                f"{row['task']}: the prediction of idx {row['idx']} is {said!r}; expected a "
                f"number from 0 to 5. {_RANK}"
            )
        return f"{float(said):.3f}"
    if said not in entry.labels:
        raise UserError(
            f"{row['task']}: the prediction of idx {row['idx']} is {said!r}; expected one of the "
            f"labels {', '.join(entry.labels)}. {_RANK}"
        )
    return entry.labels[said]


def _multirc_lines(pairs: Iterable[tuple[tuple[int, ...], Any]]) -> Iterator[dict[str, Any]]:
    """Yields a line per paragraph, with nested questions and answers."""
    for paragraph, rows in itertools.groupby(pairs, key=lambda pair: pair[0][0]):
        questions = [
            {"idx": question, "answers": [{"idx": i, "label": label} for (_, _, i), label in own]}
            for question, own in itertools.groupby(rows, key=lambda pair: pair[0][1])
        ]
        yield {"idx": paragraph, "passage": {"questions": questions}}


def _check_files(benchmark: str, contents: Mapping[str, str], partial: bool) -> dict[str, int]:
    entries = {entry.file: entry for entry in LEADERBOARDS[benchmark].values()}
    if unknown := sorted(set(contents) - set(entries)):
        raise UserError(
            f"A {benchmark} submission has no file {unknown[0]!r}; it has {', '.join(entries)}."
        )
    missing = missing_files(benchmark, contents)
    if missing and (not partial or not contents):
        raise UserError(
            f"The {benchmark} submission lacks {', '.join(missing)}: the leaderboard doesn't "
            "accept an incomplete one. Give the predictions of those tasks too, or --partial to "
            "write the others only."
        )
    return {file: _check_file(entries[file], content) for file, content in contents.items()}


def _check_file(entry: Entry, content: str) -> int:
    """Returns the number of predictions in a file, after checking it."""
    read = _tsv_rows if entry.file.endswith(".tsv") else _jsonl_rows
    seen = set()
    for line, index, label in read(entry, content):
        where = f"{entry.file}:{line}"
        if index in seen:
            raise UserError(f"{where}: index {index[-1]} appears twice.")
        seen.add(index)
        if not _is_official(entry, label):
            allowed = ", ".join(map(repr, entry.official_labels)) or "a number from 0 to 5"
            raise UserError(
                f"{where}: {label!r} is not an official label; expected "
                f"{'a text' if entry.kind == 'record' else allowed}."
            )
    if len(seen) != entry.rows:
        raise UserError(
            f"{entry.file} has {len(seen)} predictions, but the official test split has "
            f"{entry.rows} rows; predict all of it (evaluate --split test)."
        )
    return len(seen)


def _is_official(entry: Entry, label: Any) -> bool:
    if entry.kind == "record":
        return isinstance(label, str)
    if entry.kind == "score":
        return _is_score(label)
    return any(type(label) is type(known) and label == known for known in entry.official_labels)


def _is_score(text: str) -> bool:
    try:
        return 0 <= float(text) <= 5
    except ValueError:
        return False


def _tsv_rows(entry: Entry, content: str) -> Iterator[tuple[int, tuple[int, ...], Any]]:
    rows = csv.reader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE)
    for line, row in enumerate(rows, start=1):
        expected = line == 1 and tuple(row) == GLUE_HEADER
        if not expected and (line == 1 or len(row) != 2 or not _INDEX.fullmatch(row[0])):
            raise UserError(
                f"{entry.file}:{line}: {shown(row)}; expected "
                f"{'the header index, prediction' if line == 1 else 'an index and a prediction'}."
            )
        if line > 1:
            yield line, (int(row[0]),), row[1]


def _jsonl_rows(entry: Entry, content: str) -> Iterator[tuple[int, tuple[int, ...], Any]]:
    for number, line in enumerate(io.StringIO(content), start=1):
        try:
            row = parse_json(line)
            if entry.kind == "multirc":
                found = [
                    ((row["idx"], question["idx"], answer["idx"]), answer)
                    for question in row["passage"]["questions"]
                    for answer in question["answers"]
                ]
            else:
                found = [((row["idx"],), row)]
            for index, labeled in found:
                if set(labeled) != {"idx", "label"} or any(type(i) is not int for i in index):
                    raise ValueError(f"found {shown(labeled)}")
                yield number, index, labeled["label"]
        except (ValueError, KeyError, TypeError) as error:
            shape = "a paragraph's questions and answers" if entry.kind == "multirc" else "a row"
            raise UserError(
                f"{entry.file}:{number}: not {shape} with a whole-number idx and a label ({error})."
            ) from error
