"""`prompt-tuning infer`: answers the rows of a file, or lines as they come, with a prompt.

Tables (CSV, TSV, Parquet, ...) are read as training reads them. Anything else is read by lines,
each a JSON object or a text. A line of text is the column of a task that has just one; for other
tasks it is the model's input as it stands. So is a JSON object's "inputs"; of any other row the
task makes the text. Each answer is a JSON object, in the order of the rows: what was asked and the
"prediction", which is null where the text is empty. Where the task has labels, they are ranked, and
"scores" has the log-likelihood of each (`evaluation/rank.py`).

With `--prompts NAME=FILE ...` each object names its "prompt", and examples of all of them share
batches (`prompt_tuning/predictor.py`). The task is then the one that the prompt's file tells.
An object's own "labels" are ranked in place of the task's; with an empty list text is generated.
"""

import argparse
import contextlib
import dataclasses
import json
import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from prompt_tuning.cli import configurables, many_prompts, session
from prompt_tuning.cli.configurables import Data
from prompt_tuning.cli.parsers import parse
from prompt_tuning.cli.session import new_file, say
from prompt_tuning.data import questions, text_files
from prompt_tuning.data.questions import Question, text_of
from prompt_tuning.data.shortening import fit_inputs
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.evaluator import predict_rows
from prompt_tuning.predictor import Example, Predictor, Prepared
from prompt_tuning.recipes import prompts, scoring
from prompt_tuning.recipes.answers import text_batch
from prompt_tuning.recipes.counting import Counting
from prompt_tuning.recipes.prediction import Prediction

Row = dict[str, Any]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("infer", argv)
    if args.prompts is None:
        _with_one_prompt(args)
    elif args.prompt is None:
        _with_many_prompts(args)
    else:
        raise UserError("Give either --prompt or --prompts, not both.")


def _with_one_prompt(args: argparse.Namespace) -> None:
    session.load_config(args, run=args.run)
    path = session.chosen_prompt(args)
    data = configurables.data()
    prediction = _ranked_by_default(configurables.predict(data), data, args)
    base = session.load_base(data)
    inject, _ = prompts.open_prompt(base, data, path)
    task = fit_inputs(data.tasks[0], base.vocabulary, data.lengths["inputs"])
    predictor = scoring.predictor_for(base, data, task, prediction)

    # Only standard input may be somebody typing. What is sampled depends on how rows are grouped,
    # and must not depend on how fast they come.
    waits = args.input != "-" or prediction.decoding.method == "sample"
    group = _full_groups if waits else _as_they_come
    cut = 0
    answered = _counting(args)
    with _writing(args.output) as output:
        rows = (
            (question.row, text_of(question, task)) for question in _questions(args, data.tasks)
        )
        for number, rows_of_batch in enumerate(group(rows, data.batch_size)):
            ids = [base.vocabulary.encode(text) for _, text in rows_of_batch if text is not None]
            cut += sum(len(row) >= data.lengths["inputs"] for row in ids)
            found = predict_rows(
                predictor,
                base.params,
                inject,
                [text_batch(ids, base, data)] if ids else [],
                seed=prediction.seed + number,
            )
            for row, text in rows_of_batch:
                if text is None:
                    output.write(_line(row, None))
                    continue
                _, answer = next(found)
                output.write(_line(row, predictor.read(answer), predictor.scores(answer)))
            output.flush()
            answered.add(len(rows_of_batch))
    answered.close()
    _say_cut(cut, data.lengths["inputs"])


def _ranked_by_default(prediction: Prediction, data: Data, args: argparse.Namespace) -> Prediction:
    """Ranks the labels of a task that has them, unless a flag says how to answer."""
    labels = {task.labels for task in data.tasks}
    if _is_told_how(prediction, args) or len(labels) > 1 or not any(labels):
        return prediction
    return dataclasses.replace(prediction, rank=True)


def _is_told_how(prediction: Prediction, args: argparse.Namespace) -> bool:
    """Whether a flag or the configuration says how to answer."""
    given = any(name.rpartition("/")[2] == "predict.method" for name, _ in args.gin_bindings)
    return given or prediction.decoding.method != "greedy"


def _questions(args: argparse.Namespace, tasks: Sequence[Task | None]) -> Iterator[Question]:
    """Yields what is asked; says once what becomes of lines of text."""
    if args.input != "-":
        asked = questions.read_questions(args.input, as_text=args.text)
    else:
        name = "standard input"
        stream = getattr(sys.stdin, "buffer", None)  # a test's has none
        lines = sys.stdin if stream is None else text_files.decoded_lines(stream, name)
        asked = questions.line_questions(lines, name, as_text=args.text)
    task = tasks[0] if len(tasks) == 1 else None
    told = task is None
    for question in asked:
        if question.is_line and not told and task is not None:
            told = True
            if note := _about_lines(task):
                say(note)
        yield questions.with_column(question, task)


def _about_lines(task: Task) -> str:
    """What becomes of a line of text, if that isn't plain."""
    columns = task.columns
    if len(columns) > 1:
        return (
            f"Lines of text are taken as finished inputs; {task.name} makes its own of the columns "
            f"{', '.join(columns)} of a table or of JSON objects."
        )
    template = task.templates[0] if task.templates else f"the text of {task.name}"
    if not columns or template == f"{{{columns[0]}}}":
        return ""
    return (
        f"Lines of text are the column {columns[0]!r} of {template!r}; a finished input is "
        '{"inputs": "..."}.'
    )


def _counting(args: argparse.Namespace) -> Counting:
    """Returns what shows how far it has come, unless answers on the screen do so themselves."""
    shown = args.input != "-" and not (args.output == "-" and sys.stdout.isatty())
    return Counting("Answered", None, "lines", shown=shown)


def _with_many_prompts(args: argparse.Namespace) -> None:
    files = many_prompts.named_files(args.prompts)
    base, predictor = many_prompts.load(args, run=args.run)
    is_told_how = _is_told_how(configurables.predict(many_prompts.predictor()), args)
    tasks: dict[str, Task | None] = {}
    for name, file in files.items():
        adapter = base.load_adapter(file)
        sentinel = bool(adapter.metadata.target_sentinel)
        predictor.add(name, adapter.injection, target_sentinel=sentinel)
        tasks[name] = many_prompts.task_of(file, adapter.metadata.task)

    # Several batches at a time: examples of like length share one.
    group, size = (_as_they_come, 1) if args.input == "-" else (_full_groups, 8)
    answered = _counting(args)
    cut = 0
    with _writing(args.output) as output:
        rows = (
            (question.row, _prepared(question, predictor, tasks, ranks=not is_told_how))
            for question in _questions(args, list(tasks.values()))
        )
        for rows_of_group in group(rows, size * predictor.batch_size):
            asked = [prepared for _, prepared in rows_of_group if prepared is not None]
            answers = iter(predictor.run(asked))
            for row, prepared in rows_of_group:
                if prepared is None:
                    output.write(_line(row, None))
                    continue
                answer = next(answers)
                cut += answer.truncated
                output.write(_line(row, answer.text, answer.scores))
            output.flush()
            answered.add(len(rows_of_group))
    answered.close()
    _say_cut(cut, predictor.max_input_length)


def _prepared(
    question: Question,
    predictor: Predictor,
    tasks: Mapping[str, Task | None],
    *,
    ranks: bool,
) -> Prepared | None:
    """Returns the example that a row is, with the prompt that it names; None if it is empty.

    `ranks` says whether a row without "labels" gets its task's.
    """
    row, where = question.row, question.where
    if question.is_line and not row["inputs"].strip():
        return None
    name = row.get("prompt", next(iter(tasks)) if len(tasks) == 1 else None)
    if not isinstance(name, str):
        raise UserError(
            f'{where}: no prompt is named; expected {{"prompt": NAME, "inputs": TEXT}} with one of '
            f"{', '.join(tasks)}."
        )
    task = tasks.get(name)
    labels = row.get("labels", list(task.labels or ()) if ranks and task else [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f'{where}: "labels" is {labels!r}; expected a list of texts.')
    if task is None and name in tasks and "inputs" not in row:
        raise UserError(
            f'{where}: no "inputs", and the file of the prompt "{name}" names no task that could '
            "make a text of the other fields."
        )
    text = text_of(question, task)
    if text is None:
        return None
    try:
        return predictor.prepare(Example(prompt=name, inputs=text, labels=tuple(labels)))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _full_groups(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields groups of `size` rows, the last of what is left, or was there before an error."""
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
    """Yields groups of up to `size` rows: those that are there, waiting only for the first.

    So what is there at once is answered together, and someone who types line by line.
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


def _line(row: Row, prediction: str | None, scores: Mapping[str, float] | None = None) -> str:
    ranked = {"scores": dict(scores)} if scores else {}
    answered = {**row, **ranked, "prediction": prediction}
    return json.dumps(answered, ensure_ascii=False) + "\n"


def _say_cut(number: int, length: int) -> None:
    if number:
        say(f"{number} inputs were cut to {length} tokens.")


def _writing(path: str) -> contextlib.AbstractContextManager[IO[str]]:
    return contextlib.nullcontext(sys.stdout) if path == "-" else new_file(path)
