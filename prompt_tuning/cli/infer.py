"""`prompt-tuning infer`: answers the rows of a file, or lines of a stream, with prompts.

Tables (CSV, TSV, Parquet, ...) are read as in training. Anything else is read by lines, each a JSON
object or text. For a task with a single column a line of text is that column; for other tasks it is
the unmodified model input. So is the "inputs" of a JSON object; the task formats all other rows.
Answers are JSON objects in the order of the rows: the row and its "prediction", which is null if
the text is empty. If the task has labels, they are ranked, and "scores" contains the log-likelihood
of each (`evaluation/rank.py`).

With `--prompts NAME=FILE ...` each object names its "prompt", and batches mix examples of all
prompts. The task is the one recorded in the prompt's file. An object's "labels", if present, are
ranked instead of the task's; an empty list generates text.
"""

import argparse
import contextlib
import json
import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.data import questions, text_files
from prompt_tuning.data.questions import Question
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.predictor import (
    EmptyExample,
    Example,
    Predictor,
    UnknownPrompt,
)
from prompt_tuning.files import new_file
from prompt_tuning.recipes import predictors, prompts, scoring
from prompt_tuning.recipes.counting import Counting
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.task_file import task_of_prompt

_ONE = ""
"""Name of the prompt if there is only one."""


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("infer", argv)
    if args.prompts is not None and args.prompt is not None:
        raise UserError("Give either --prompt or --prompts, not both.")
    predictor = _with_one_prompt(args) if args.prompts is None else _with_many_prompts(args)
    tasks = [predictor.prompt(name).task for name in predictor.prompts]
    answers_on_screen = args.output == "-" and sys.stdout.isatty()
    shown = args.input != "-" and not answers_on_screen
    # Only stdin may be interactive. Of a file, several batches are read at a time, so that examples
    # of similar length can share a batch.
    group, batches = (_as_they_come, 1) if args.input == "-" else (_full_groups, 8)
    cut = 0

    def prepared(number: int, question: Question) -> Any:
        try:
            example = _example(question, predictor, many=args.prompts is not None)
            return question, predictor.prepare(example, number=number, where=question.where)
        except EmptyExample:
            return question, None
        except UnknownPrompt as error:
            raise UserError(f"{question.where}: {error}") from error

    answered = Counting("Answered", None, "lines", shown=shown)
    to_screen = contextlib.nullcontext(sys.stdout)
    with to_screen if args.output == "-" else new_file(args.output) as output:
        asked = (prepared(*each) for each in enumerate(_questions(args, tasks)))
        for questions in group(asked, batches * predictor.batch_size):
            answers = iter(predictor.run([each for _, each in questions if each is not None]))
            for question, each in questions:
                answer = None if each is None else next(answers)
                cut += answer is not None and answer.truncated
                scores = {"scores": dict(answer.scores)} if answer and answer.scores else {}
                row = {**question.row, **scores, "prediction": answer and answer.text}
                output.write(json.dumps(row, ensure_ascii=False) + "\n")
            output.flush()
            answered.add(len(questions))
    answered.close()
    if cut:
        say(f"{cut} inputs were truncated to {predictor.max_input_length} tokens.")


def _with_one_prompt(args: argparse.Namespace) -> Predictor:
    loading.load_config(args, run=args.run)
    path = loading.chosen_prompt(args)
    data = configurables.data()
    prediction = configurables.predict(data)
    base = loading.load_base(data)
    inject, _ = prompts.open_prompt(base, data, path)
    labels = (
        scoring.labels_to_rank(data, data.tasks[0], prediction)
        if _names_the_way(args)
        else predictors.default_labels(data, prediction)
    )
    predictor = predictors.make_predictor(base, data, prediction)
    predictor.add(
        _ONE,
        inject({}),
        task=data.tasks[0],
        labels=labels,
        target_sentinel=data.target_sentinel,
    )
    return predictor


def _with_many_prompts(args: argparse.Namespace) -> Predictor:
    files: dict[str, str] = {}
    for pair in args.prompts:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UserError(f"--prompts has '{pair}'; expected NAME=FILE, such as rte=rte.npy.")
        if name in files:
            raise UserError(f"--prompts names '{name}' twice: {files[name]} and {file}.")
        files[name] = file
    loading.load_config(args, run=args.run, defaults=[loading.MANY_PROMPTS])
    data = configurables.predictor()
    prediction = configurables.predict(data)
    base = loading.load_base(data)
    ranks = prediction.rank or not (_names_the_way(args) or prediction.decoding.method != "greedy")
    predictor = predictors.make_predictor(base, data, prediction)
    for name, file in files.items():
        adapter = base.load_adapter(file)
        task = task_of_prompt(file, adapter.metadata.task)
        predictor.add(
            name,
            adapter.injection,
            task=task,
            labels=(task.labels or ()) if task and ranks else (),
            target_sentinel=bool(adapter.metadata.target_sentinel),
        )
    return predictor


def _names_the_way(args: argparse.Namespace) -> bool:
    """Returns whether a flag selects the prediction method."""
    return any(name.rpartition("/")[2] == "predict.method" for name, _ in args.gin_bindings)


def _example(question: Question, predictor: Predictor, *, many: bool) -> Example:
    """Returns a row as an example, with the prompt it names if there may be several."""
    row, where = question.row, question.where
    if not many:
        return Example(prompt=_ONE, inputs=row)
    if question.is_line and not row["inputs"].strip():
        raise EmptyExample(where)
    only, *others = predictor.prompts
    name = row.get("prompt", None if others else only)
    if not isinstance(name, str):
        raise UserError(
            f'{where}: no prompt is named; expected {{"prompt": NAME, "inputs": TEXT}} with one of '
            f"{', '.join(predictor.prompts)}."
        )
    labels = row.get("labels")
    if "labels" not in row:
        return Example(prompt=name, inputs=row)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f'{where}: "labels" is {labels!r}; expected a list of strings.')
    return Example(prompt=name, inputs=row, labels=tuple(labels))


def _questions(args: argparse.Namespace, tasks: Sequence[Task | None]) -> Iterator[Question]:
    """Yields the questions; prints once how lines of text are used."""
    if args.input != "-":
        asked = questions.read_questions(args.input, as_text=args.text)
    else:
        name = "standard input"
        stream = getattr(sys.stdin, "buffer", None)  # absent in tests
        lines = sys.stdin if stream is None else text_files.decoded_lines(stream, name)
        asked = questions.line_questions(lines, name, as_text=args.text)
    task = tasks[0] if len(tasks) == 1 else None
    explained = task is None
    for question in asked:
        if question.is_line and not explained and task is not None:
            explained = True
            if note := _about_lines(task):
                say(note)
        yield questions.with_column(question, task)


def _about_lines(task: Task) -> str:
    """Returns how lines of text are used, or an empty string if that is obvious."""
    columns = task.columns
    if len(columns) > 1:
        return (
            f"Lines of text are read as complete model inputs; to format them as {task.name}, "
            f"give its columns {', '.join(columns)} in a table or as JSON objects."
        )
    template = task.templates[0] if task.templates else f"the text of {task.name}"
    if not columns or template == f"{{{columns[0]}}}":
        return ""
    return (
        f"Lines of text are read as the column {columns[0]!r} of {template!r}; write a complete "
        'model input as {"inputs": "..."}.'
    )


def _full_groups(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields groups of `size` rows; the last may be smaller, also if an error follows."""
    group: list[Any] = []
    wrong = None
    try:
        for row in rows:
            group.append(row)
            if len(group) == size:
                yield group
                group = []
    except UserError as error:
        wrong = error
    if group:
        yield group
    if wrong is not None:
        raise wrong


def _as_they_come(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields groups of up to `size` available rows, waiting only for the first of each.

    So piped input is batched, and interactive input is answered line by line.
    """
    arrived: queue.Queue = queue.Queue(maxsize=2 * size)
    end = object()

    def read() -> None:
        try:
            for row in rows:
                arrived.put(row)
            arrived.put(end)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=read, daemon=True).start()
    group: list[Any] = []
    while True:
        try:
            item = arrived.get(block=not group)
        except queue.Empty:
            item = None
        if item is None or item is end or isinstance(item, BaseException) or len(group) == size:
            if group:
                yield group
            group = []
        if item is end:
            return
        if isinstance(item, BaseException):
            raise item
        if item is not None:
            group.append(item)
