"""Prompt designs: tasks worded as text for a model without any training.

This is the baseline of Lester et al. 2021, figure 1 (GPT-3's, Brown et al. 2020): the input becomes
part of a sentence, a word represents each label, and solved examples from the training split may
precede the question. A design is an entry of a TOML file:

    [tinyworld_rte.claim]
    input = "yes or no? {premise} {hypothesis}"
    words = {entailment = "yes", not_entailment = "no"}

Names in braces are the fields of a row; `{inputs}` is T5's own text for it. `designed` applies a
design to a task and returns another task, which is tokenized and scored like any other.
"""

import dataclasses
import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prompt_tuning.data.preprocessors import Row
from prompt_tuning.data.sources import bad_rows_named
from prompt_tuning.data.tasks.task import Example, Metric, Task
from prompt_tuning.data.templates import Template
from prompt_tuning.data.text_files import read_lines
from prompt_tuning.errors import UserError, at_least, did_you_mean
from prompt_tuning.files import FilePath

SHOTS = "shots"
"""Name of the metadata that counts the solved examples before a question."""

_INPUTS = "inputs"
_FIELDS = ("input", "words", "separator")
# Fields that contain a row's answer, in any task: no wording may show them.
_ANSWERS = frozenset({"label", "answers", "targets", "summary", "highlights"})


@dataclass(frozen=True, kw_only=True)
class Design:
    """A wording of a task.

    Attributes:
      name: its name in the file.
      where: the file and the entry, for messages.
      input: the text of the question, up to the answer.
      words: the word for each label; None keeps the labels.
      separator: the text between solved examples and the question.
    """

    name: str
    where: str
    input: Template
    words: Mapping[str, str] | None = None
    separator: str = " "

    def render(self, row: Row, inputs: str) -> str:
        """Returns the question for a row.

        Args:
          row: its fields; a list of strings is joined with commas.
          inputs: T5's own text for it.

        Raises:
          UserError: the design names a field that the row doesn't have.
          ValueError: a field is neither a string nor a number.
        """
        shown = {
            name: ", ".join(value) if isinstance(value, list | tuple) else value
            for name, value in {**row, _INPUTS: inputs}.items()
            if name not in _ANSWERS
        }
        for column in self.input.columns:
            if column not in shown:
                raise UserError(
                    f"{self.where} names the field {column!r}; the rows have "
                    f"{', '.join(shown)}.{did_you_mean(column, shown)}"
                )
        return self.input.render(shown)


def read_designs(path: FilePath) -> dict[str, dict[str, Design]]:
    """Returns the designs in a file, by task and by name, in the order of the file.

    Raises:
      UserError: the file can't be read or isn't TOML, or an entry isn't a design.
    """
    try:
        content = tomllib.loads("".join(read_lines(path)))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}.") from error
    found = {}
    for task, entries in content.items():
        if not isinstance(entries, dict):
            raise UserError(f"{path}: {task} is {entries!r}; expected entries like [{task}.name].")
        found[task] = {name: _design(path, task, name, entry) for name, entry in entries.items()}
    return found


def _design(path: FilePath, task: str, name: str, entry: Any) -> Design:
    where = f"{path}: [{task}.{name}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("input"), str):
        raise UserError(f"{where} has no text 'input', such as \"{{premise}} True or False?\".")
    for field in entry:
        if field not in _FIELDS:
            raise UserError(
                f"{where} has a field {field!r}; expected {', '.join(_FIELDS)}."
                f"{did_you_mean(field, _FIELDS)}"
            )
    words, separator = entry.get("words"), entry.get("separator", " ")
    if not isinstance(separator, str):
        raise UserError(f"{where}: 'separator' is {separator!r}; expected a string.")
    if words is not None and not isinstance(words, dict):
        raise UserError(
            f"{where}: 'words' is {words!r}; expected a word for each label, such as "
            '{True = "yes", False = "no"}.'
        )
    try:
        template = Template(entry["input"], "input")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if leaks := _ANSWERS.intersection(template.columns):
        raise UserError(f"{where} shows {', '.join(sorted(leaks))}, which contains the answer.")
    return Design(name=name, where=where, input=template, words=words, separator=separator)


def designed(
    task: Task,
    design: Design,
    *,
    shots: int = 0,
    seed: int = 0,
    data_dir: str | None = None,
    fits: Callable[[str], bool],
) -> Task:
    """Returns the task worded by a design, with solved examples before each question.

    Solved examples are sampled from the training split for each question, as in GPT-3's evaluation,
    depending only on the seed and the question's text. Those that would make the text too long are
    omitted; "shots" in an example's metadata counts the others. Metrics are the task's own: answers
    are mapped back to its labels, and an answer that isn't one of the design's words is wrong.

    Args:
      task: the task.
      design: the wording.
      shots: the number of solved examples.
      seed: for sampling them.
      data_dir: the folder of the task's source.
      fits: whether a text is short enough for the model's input.

    Raises:
      UserError: the words don't match the task's labels, the training split has too few
        examples, or `shots` or `seed` is negative.
    """
    at_least(0, {"shots": shots, "seed": seed})
    words = _checked_words(design, task)
    pool = _solved(task, design, words, data_dir) if shots else ()
    if shots > len(pool):
        raise UserError(
            f"{shots} solved examples were requested, but the training split of {task.name} has "
            f"{len(pool)}."
        )

    def render(row: Row, training: bool) -> Iterable[Example]:
        for example in task.render(row, training):
            question = design.render(row, example.inputs)
            before: list[str] = []
            for solved in _drawn(pool, question, shots, seed):
                if fits(design.separator.join([*before, solved, question])):
                    before.append(solved)
            yield Example(
                inputs=design.separator.join([*before, question]),
                targets=words.get(example.targets, example.targets),
                metadata={**example.metadata, SHOTS: len(before)},
                withheld=example.withheld,
            )

    if not words:
        return dataclasses.replace(task, render=render, text=None)
    label_of = {word: label for label, word in words.items()}
    return dataclasses.replace(
        task,
        render=render,
        text=None,
        labels=tuple(words[label] for label in task.labels or ()),
        metrics=tuple(_on_labels(metric, label_of) for metric in task.metrics),
    )


def _solved(
    task: Task, design: Design, words: Mapping[str, str], data_dir: str | None
) -> Sequence[tuple[str, str]]:
    """Returns each training example's question, without and with its answer."""
    if "train" not in task.splits:
        raise UserError(f"{task.name} has no training split to draw solved examples from.")
    pool = []
    for where, row in task.source(data_dir).rows("train"):
        with bad_rows_named(where, row):
            for example in task.render(row, True):
                question = design.render(row, example.inputs)
                answer = words.get(example.targets, example.targets)
                pool.append((question, f"{question} {answer}"))
    return pool


def _drawn(pool: Sequence[tuple[str, str]], question: str, count: int, seed: int) -> list[str]:
    """Samples solved examples for a question, excluding the question itself."""
    if not count:
        return []
    digest = hashlib.sha256(question.encode()).digest()
    rng = np.random.default_rng((seed, int.from_bytes(digest[:8], "big")))
    drawn = rng.choice(len(pool), min(count + 1, len(pool)), replace=False)
    return [pool[i][1] for i in drawn if pool[i][0] != question][:count]


def _checked_words(design: Design, task: Task) -> Mapping[str, str]:
    if design.words is None:
        return {}
    if not task.labels:
        raise UserError(
            f"{design.where} gives words for labels, but the answers of {task.name} are free text; "
            "leave 'words' out."
        )
    if set(design.words) != set(task.labels):
        raise UserError(
            f"{design.where} gives words for {', '.join(design.words)}; the labels of {task.name} "
            f"are {', '.join(task.labels)}."
        )
    if len(set(design.words.values())) < len(design.words):
        raise UserError(f"{design.where} gives two labels the same word.")
    return design.words


def _on_labels(metric: Metric, label_of: Mapping[str, str]) -> Metric:
    """Returns a metric that maps words back to labels and applies a metric of labels."""

    def of_words(
        examples: Sequence[Mapping[str, Any]], predictions: Sequence[str]
    ) -> dict[str, float]:
        # The target of a withheld label isn't a word.
        renamed = [
            {**example, "targets": label_of.get(example["targets"], example["targets"])}
            for example in examples
        ]
        return metric(renamed, [label_of.get(prediction, "") for prediction in predictions])

    return of_words
