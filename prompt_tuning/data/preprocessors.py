"""T5's text-to-text formats in plain Python: the only definition of a task's text.

A preprocessor takes one row (a dict with TFDS's field names and the label as a word) and returns
the text of the inputs or targets; SeqIO gets its tasks from the same functions (`seqio_tasks.py`).
The formats are those of Raffel et al. (2020), appendix D, as in T5's published preprocessors;
`tests/data/tasks/test_superglue.py` compares them character by character.

Rows come from `sources.py`; `tasks/` assigns formats to tasks. A bad row raises `KeyError` (a
missing field) or `ValueError`; `Task.examples` adds file and line.
"""

import re
import string
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

UNLABELED = "<unk>"
"""T5's target for an example with a withheld label, as in SuperGLUE's test splits."""

_HIGHLIGHT_AFTER_STOP = re.compile(r"([.?!\"'])\n@highlight\n")
_HIGHLIGHT = "\n@highlight\n"
_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")
_SPACES = re.compile(r"[ \t\n\f\r]+")


def text_field(row: Row, field: str) -> str:
    """Returns a field of the row, which must be text."""
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is {value!r}, expected text")
    return value


def fields_text(row: Row, fields: Mapping[str, str]) -> str:
    """Returns `name: text name: text ...`; `fields` maps each shown name to the row's field."""
    return " ".join(f"{name}: {text_field(row, field)}" for name, field in fields.items())


def multirc_text(row: Row) -> str:
    """Returns MultiRC's inputs: the fields of a question, one answer and its paragraph, unmarked.

    The paragraphs have sentence numbers in bold and line breaks as HTML.
    """
    fields = {"question": "question", "answer": "answer", "paragraph": "paragraph"}
    text = fields_text(row, fields).replace("<br>", " ")
    return text.replace("<b>", "").replace("</b>", "")


def record_text(row: Row) -> str:
    """Returns ReCoRD's inputs: the query with its "@placeholder", the entities, the passage.

    The bullet points at the end of a news passage become sentences of it.
    """
    passage = _HIGHLIGHT_AFTER_STOP.sub(r"\1 ", text_field(row, "passage"))
    passage = passage.replace(_HIGHLIGHT, ". ")
    entities = row["entities"]
    if not isinstance(entities, list) or not all(isinstance(each, str) for each in entities):
        raise ValueError(f"field 'entities' is {entities!r}, expected a list of strings")
    listed = ", ".join(entities)
    return f"query: {text_field(row, 'query')} entities: {listed} passage: {passage}"


def spaced_punctuation(text: str) -> str:
    """Returns the text with each ASCII punctuation mark between spaces and all spaces single."""
    return _SPACES.sub(" ", _PUNCTUATION.sub(r" \1 ", text))


def question_text(row: Row) -> str:
    """Returns the inputs of SQuAD and MRQA: the question and its context, punctuation spaced."""
    spaced = {name: spaced_punctuation(text_field(row, name)) for name in ("question", "context")}
    return _SPACES.sub(" ", f"question: {spaced['question']} context: {spaced['context']}")


def pronoun_text(row: Row) -> str:
    """Returns DPR's inputs: the sentence with the pronoun's first occurrence between asterisks.

    A pronoun must have a space before it and a space, period or comma after it; a sentence without
    one is unchanged.
    """
    pronoun = re.compile(rf" ({re.escape(text_field(row, 'pronoun'))})([ .,])")
    return pronoun.sub(r" *\1*\2", text_field(row, "sentence"), count=1)


def wsc_text(row: Row) -> str:
    """Returns WSC's inputs: the text with the pronoun between asterisks.

    `span2_index` counts words split at single spaces. In two published rows it misses the pronoun,
    or punctuation is attached to the pronoun; then the nearest occurrence is used, and its
    punctuation split off.

    Raises:
      ValueError: the pronoun isn't in the text.
    """
    pronoun = text_field(row, "span2_text")
    index = row["span2_index"]
    words = text_field(row, "text").split(" ")
    if 0 <= index < len(words) and words[index] == pronoun:
        words[index] = f"*{pronoun}*"
        return " ".join(words)

    found = [i for i, word in enumerate(words) if word.rstrip(string.punctuation) == pronoun]
    if not found:
        raise ValueError(f"the pronoun {pronoun!r} is not a word of the text")
    nearest = min(found, key=lambda i: abs(i - index))
    punctuation = words[nearest].removeprefix(pronoun)
    words[nearest] = f"*{pronoun}* {punctuation}".rstrip()
    return " ".join(words).rstrip()


def fix_wsc_span(text: str, span: str, index: int) -> str:
    """Returns a WSC span spelled as in the text, as TFDS's `super_glue/wsc.fixed` does.

    Some published spans differ from the text in the case of their first letter, a period at their
    end or a line break.
    """
    words = text.split()
    if span in text or not span or not 0 <= index < len(words):
        return span
    first_letter = span[0].lower() if words[index][0].islower() else span[0].upper()
    fixed = (first_letter + span[1:]).rstrip(".").replace("\n", " ")
    return fixed if fixed in text else span
