"""SuperGLUE's rows: from the official jsonl to TFDS's fields, and from those to examples.

`flatten_*` takes a line of the official file and yields rows with TFDS's fields and the label as a
word, or None if withheld. `render_*` converts a row to examples, given a function that returns its
inputs. The table in `superglue.py` lists the functions of each task.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from prompt_tuning.data import preprocessors
from prompt_tuning.data.preprocessors import UNLABELED, Row
from prompt_tuning.data.tasks.task import Example

JsonRow = dict[str, Any]
LabelWords = Mapping[Any, str]
"""Maps a label in the official file to the label word."""


def _with_label_word(row: JsonRow, words: LabelWords) -> JsonRow:
    label = row.get("label")
    if label is None:
        return {**row, "label": None}
    if not isinstance(label, str | int) or label not in words:
        raise ValueError(f"label {label!r} is not one of {', '.join(map(repr, words))}")
    return {**row, "label": words[label]}


def flatten_multirc(row: JsonRow, words: LabelWords) -> Iterator[JsonRow]:
    """Yields one row per answer; the file has one line per paragraph."""
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            flat = {
                "paragraph": row["passage"]["text"],
                "question": question["question"],
                "answer": answer["text"],
                "label": answer.get("label"),
                "idx": {
                    "paragraph": row["idx"],
                    "question": question["idx"],
                    "answer": answer["idx"],
                },
            }
            yield _with_label_word(flat, words)


def flatten_record(row: JsonRow, words: LabelWords) -> Iterator[JsonRow]:
    """Yields one row per query; inclusive offsets mark entities in the passage."""
    del words
    passage = row["passage"]["text"]
    spans = row["passage"]["entities"]
    entities = sorted({passage[span["start"] : span["end"] + 1] for span in spans})
    for query in row["qas"]:
        yield {
            "passage": passage,
            "query": query["query"],
            "entities": entities,
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": row["idx"], "query": query["idx"]},
        }


def flatten_wsc(row: JsonRow, words: LabelWords) -> Iterator[JsonRow]:
    """Yields the row with its spans at the top level, spelled as in the text."""
    target = row["target"]
    flat = {"text": row["text"], "idx": row["idx"], "label": row.get("label")}
    for span in ("span1", "span2"):
        index = target[f"{span}_index"]
        flat[f"{span}_index"] = index
        flat[f"{span}_text"] = preprocessors.fix_wsc_span(
            row["text"], target[f"{span}_text"], index
        )
    yield _with_label_word(flat, words)


def flatten_plain(row: JsonRow, words: LabelWords) -> Iterator[JsonRow]:
    """Yields the row with its label as a word."""
    yield _with_label_word(row, words)


def render_classification(
    row: Row, training: bool, *, text: Callable[[Row], str]
) -> Iterable[Example]:
    """Yields the row with its label word as the target."""
    del training
    yield Example(
        inputs=text(row), targets=row["label"] or UNLABELED, metadata={"idx": row.get("idx")}
    )


def render_multirc(row: Row, training: bool, *, text: Callable[[Row], str]) -> Iterable[Example]:
    """Yields one answer to a question, grouped by the question for exact match."""
    question = [row["idx"]["paragraph"], row["idx"]["question"]]
    for example in render_classification(row, training, text=text):
        yield replace(example, metadata={**example.metadata, "group": question})


def render_record(row: Row, training: bool, *, text: Callable[[Row], str]) -> Iterable[Example]:
    """Yields one example per answer for training, one per query for scoring."""
    answers = row["answers"] or [UNLABELED]
    for answer in answers if training else answers[:1]:
        yield Example(
            inputs=text(row),
            targets=answer,
            metadata={"idx": row["idx"], "answers": row["answers"]},
        )


def render_wsc(row: Row, training: bool, *, text: Callable[[Row], str]) -> Iterable[Example]:
    """Yields the candidate as the referent; for training, only if it is the correct one."""
    label = row["label"]
    if training and label is None:
        raise ValueError("no label; a training example needs one")
    if training and label == "False":
        return
    yield Example(
        inputs=text(row),
        targets=preprocessors.text_field(row, "span1_text") if label else UNLABELED,
        metadata={
            "idx": row["idx"],
            "label": label == "True",
            "candidate": row.get("span1_text"),
        },
    )
