"""The inputs of `infer`, in order: rows of tables, JSON objects, and lines of text.

A table (CSV, TSV, JSON, Parquet, a Hugging Face dataset) is recognized by its name and read as for
training. Anything else is read line by line: a line that starts with a brace is a JSON object, any
other is text. An empty line is a question without text, so that there is one question per line.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prompt_tuning.data.sources import bad_rows_named
from prompt_tuning.data.tables import (
    JSON_LINES,
    JsonRow,
    check_characters,
    load_json,
    read_table,
    table_format,
)
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.text_files import read_lines
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
      row: its fields; a line of text is the field "inputs".
      where: the place where it was read, such as "lines.txt:3".
      is_line: whether it was a line of text.
    """

    row: JsonRow
    where: str
    is_line: bool = False


def read_questions(path: str, *, as_text: bool = False) -> Iterator[Question]:
    """Yields the questions of a file.

    Args:
      path: the file.
      as_text: read every line as text, regardless of the file's name and the first character.

    Raises:
      UserError: the file can't be read, or a row or line is malformed.
    """
    kind = table_format(path)
    if kind != "hf" and not as_path(path).exists():
        raise UserError(f"Input file {path} doesn't exist; give another --input.")
    # Streams such as /dev/null have no suffix; neither has the folder of a saved dataset.
    is_stream = as_path(path).exists() and not (as_path(path).is_file() or as_path(path).is_dir())
    if as_text or is_stream or kind in (None, *JSON_LINES):
        yield from line_questions(read_lines(as_path(path)), path, as_text=as_text)
        return
    for where, row in read_table(path):
        yield Question(row=row, where=where)


def line_questions(lines: Iterable[str], name: str, *, as_text: bool = False) -> Iterator[Question]:
    """Yields a question for each line, from a file called `name`; see `read_questions`."""
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        where = f"{name}:{number}"
        is_object = not as_text and line.lstrip().startswith("{")
        try:
            check_characters(line)
            row = load_json(line) if is_object else {"inputs": line}
        except ValueError as error:
            expected = "expected a text or one JSON object per line"
            hint = "; --text reads every line as text" if is_object else ""
            raise UserError(f"{where}: {error}; {expected}{hint}.") from error
        yield Question(row=row, where=where, is_line=not is_object)


def with_column(question: Question, task: Task | None) -> Question:
    """Returns a line of text as its task's column, if the task has exactly one."""
    if not question.is_line or task is None or len(task.columns) != 1:
        return question
    row = {task.columns[0]: question.row["inputs"]}
    return Question(row=row, where=question.where)


def text_of(question: Question, task: Task | None) -> str | None:
    """Returns the model's input, or None if the question is empty.

    A text under "inputs" is used unchanged, unless the task has a column of that name.

    Raises:
      UserError: the row lacks a column, or a value is bad.
    """
    row, columns = question.row, task.columns if task else ()
    if task is None or ("inputs" in row and "inputs" not in columns):
        text = row.get("inputs", "")
        if not isinstance(text, str):
            raise UserError(f'{question.where}: "inputs" is {text!r}; expected a string.')
    elif columns and all(column in row and _is_empty(row[column]) for column in columns):
        return None
    else:
        with bad_rows_named(question.where, row):
            text = task.inputs_of(row)
    return None if _is_empty(text) else text


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
