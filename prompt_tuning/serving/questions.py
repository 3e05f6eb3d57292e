"""The JSON that clients send: examples with their fields, and messages about errors."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.evaluation.predictor import Example


def _encodable(text: str) -> str:
    """Rejects lone surrogates, which JSON allows but no vocabulary or response can encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not valid Unicode") from None
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; give the text to answer")
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Question(BaseModel):
    """An example: the prompt to answer it with, its text, and labels to rank, if any.

    Instead of a text, it may have the fields of the prompt's task.
    """

    model_config = ConfigDict(extra="allow")
    prompt: Annotated[str, Field(max_length=100)]
    inputs: Annotated[Text, AfterValidator(_not_blank)] | None = None
    labels: Annotated[tuple[Text, ...], Field(min_length=1)] = ()


class Questions(BaseModel):
    """Several examples, for any prompts."""

    model_config = ConfigDict(extra="forbid")
    examples: Annotated[list[Question], Field(min_length=1)]


def _one_or_many(body: Any) -> str:
    return "many" if isinstance(body, dict) and "examples" in body else "one"


Body = Annotated[
    Annotated[Question, Tag("one")] | Annotated[Questions, Tag("many")],
    Discriminator(_one_or_many),
]


def example_of(question: Question, task: Task | None, place: str) -> Example:
    """Converts a question to an example, with `inputs` or the fields of the prompt's task.

    Args:
      question: from the client.
      task: the prompt's, if its file names one.
      place: the example's position in the body, such as "examples[3].".

    Raises:
      UserError: a field is unknown or missing.
    """
    fields = question.model_extra or {}
    columns = task.columns if task else ()
    # A task with unknown columns reports missing ones itself.
    if task is None or columns or question.inputs is not None:
        for name in fields:
            if name not in columns:
                raise UserError(_unknown_field(place, name, [*Question.model_fields, *columns]))
    if question.inputs is None and not fields:
        raise UserError(f"{place}inputs: missing.")
    row = fields if question.inputs is None else {**fields, "inputs": question.inputs}
    return Example(prompt=question.prompt, inputs=row, labels=question.labels or None)


def first_mistake(errors: Sequence[Any]) -> str:
    """Returns the first of Pydantic's errors as one line: "examples[3].inputs: missing.".

    A misspelled field comes first, because it causes another to be missing.
    """
    first, *others = sorted(errors, key=lambda error: error["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        return f"The body isn't JSON: {first['ctx']['error']} (character {first['loc'][-1]})."
    parts = [part for part in first["loc"] if part not in ("body", "one", "many")]
    places = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    place = "".join(places).lstrip(".") or "body"
    if first["type"] == "extra_forbidden":
        return _unknown_field("", place, list(Questions.model_fields))
    if first["type"] == "missing" and isinstance(given := first["input"], dict):
        known = list(Question.model_fields)
        if "many" not in first["loc"]:
            known += Questions.model_fields
        for name in given.keys() - known:
            if did_you_mean(name, known):
                return _unknown_field(place.removesuffix(str(parts[-1])), name, known)
    message = _MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {message}{more}."


def _unknown_field(place: str, name: str, known: Sequence[str]) -> str:
    return (
        f"{place}{name}: unknown field.{did_you_mean(name, known)} Known fields: "
        f"{', '.join(known)}."
    )


_MESSAGES = {
    "missing": "missing",
    "string_type": "must be a string",
    "tuple_type": "must be a list of strings",
    "list_type": "must be a list of objects",
    "too_short": "is an empty list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
"""Replacements for Pydantic's messages, by error type."""
