"""`prompt-tuning infer`: answers lines of text or jsonl with a prompt, as they come.

A line of text is the model's input as it stands. A JSON object is answered by its "inputs", or,
without that, by the text that the task makes of its fields (TFDS's names). Every answer is a
JSON object with its "prediction", in the order of the input.

With `--prompts NAME=FILE ...` each object names its "prompt", and examples of all of them share
batches (`prompt_tuning/predictor.py`). The task is then the one that the prompt's file tells.
An object with "labels" is answered by the likeliest, and gets the "scores" of all.
"""

import argparse
import contextlib
import itertools
import json
import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.cli.configurables import Base, Data
    from prompt_tuning.data.tasks.task import Task
    from prompt_tuning.predictor import Predictor, Prepared

_SHORTEST = 16
"""The shortest padded input, in tokens; longer ones are padded to it times a power of two."""

Row = dict[str, Any]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("infer", "Answers lines of text or jsonl with a prompt; writes jsonl.")
    parser.add_prompt_arguments(optional=True)
    parser.add_argument(
        "--prompts",
        nargs="+",
        metavar="NAME=FILE",
        help="prompts of one model, by the names that the input gives them: "
        '{"prompt": NAME, "inputs": TEXT}, with "labels": [...] to rank those',
    )
    parser.add_argument("--input", default="-", metavar="FILE", help="- is standard input")
    parser.add_argument("--output", default="-", metavar="FILE", help="- is standard output")
    args = parser.parse(argv)
    if args.prompts is None:
        _with_one_prompt(args)
    elif args.prompt is None:
        _with_many_prompts(args)
    else:
        raise UserError("Give either --prompt or --prompts, not both.")


def _with_one_prompt(args: argparse.Namespace) -> None:
    from prompt_tuning.cli import configurables, scoring, session
    from prompt_tuning.cli.counting import Counting
    from prompt_tuning.evaluation.evaluator import predict

    session.load_config(args, run=args.run)
    path = session.chosen_prompt(args)
    data = configurables.data()
    prediction = configurables.predict(data)
    base = session.load_base(data)
    inject, _ = session.open_prompt(base, data, path)
    task = data.tasks[0]
    predictor = scoring.predictor_for(base, data, task, prediction)

    # Only standard input may be somebody typing. What is sampled depends on how rows are grouped,
    # and must not depend on how fast they come.
    waits = args.input != "-" or prediction.decoding.method == "sample"
    group = _full_groups if waits else _as_they_come
    cut = 0
    # Answers on the screen show for themselves how far it has come.
    shown = args.input != "-" and not (args.output == "-" and sys.stdout.isatty())
    answered = Counting("Answered", None, "lines", shown=shown)
    with _reading(args.input) as lines, _writing(args.output) as output:
        rows = ((row, _text_of(row, where, task)) for row, where in _rows(lines, _name(args.input)))
        for number, rows_of_batch in enumerate(group(rows, data.batch_size)):
            ids = [base.vocabulary.encode(text) for _, text in rows_of_batch]
            cut += sum(len(row) >= data.lengths["inputs"] for row in ids)
            answers = predict(
                predictor,
                base.params,
                inject,
                [_batch(ids, base, data)],
                seed=prediction.seed + number,
            )
            for (row, _), (_, text) in zip(rows_of_batch, answers, strict=True):
                output.write(_line(row, text))
            output.flush()
            answered.add(len(rows_of_batch))
    answered.close()
    _say_cut(cut, data.lengths["inputs"])


def _with_many_prompts(args: argparse.Namespace) -> None:
    from prompt_tuning.cli import many_prompts, session

    files = many_prompts.named_files(args.prompts)
    base, predictor = many_prompts.load(args, run=args.run)
    tasks: dict[str, str | None] = {}
    for name, file in files.items():
        adapter = session.load_adapter_for(base, file)
        sentinel = bool(adapter.metadata.target_sentinel)
        predictor.add(name, adapter.injection, target_sentinel=sentinel)
        tasks[name] = adapter.metadata.task

    # Several batches at a time: examples of like length share one.
    group, size = (_as_they_come, 1) if args.input == "-" else (_full_groups, 8)
    cut = 0
    with _reading(args.input) as lines, _writing(args.output) as output:
        rows = (
            (row, _prepared(row, where, predictor, tasks))
            for row, where in _rows(lines, _name(args.input))
        )
        for rows_of_group in group(rows, size * predictor.batch_size):
            answers = predictor.run([prepared for _, prepared in rows_of_group])
            for (row, _), answer in zip(rows_of_group, answers, strict=True):
                cut += answer.truncated
                scores = {"scores": answer.scores} if answer.scores else {}
                output.write(_line({**row, **scores}, answer.text))
            output.flush()
    _say_cut(cut, predictor.max_input_length)


def _prepared(
    row: Row, where: str, predictor: "Predictor", tasks: Mapping[str, str | None]
) -> "Prepared":
    """Returns the example that a row is, with the prompt that it names."""
    from prompt_tuning.data.tasks.task import get_task
    from prompt_tuning.predictor import Example

    name = row.get("prompt", next(iter(tasks)) if len(tasks) == 1 else None)
    labels = row.get("labels", [])
    if not isinstance(name, str):
        raise UserError(
            f'{where}: no prompt is named; expected {{"prompt": NAME, "inputs": TEXT}} with one of '
            f"{', '.join(tasks)}."
        )
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError(f'{where}: "labels" is {labels!r}; expected a list of texts.')
    task = tasks.get(name)
    if "inputs" in row or name not in tasks:
        text = row.get("inputs", "")
        if not isinstance(text, str):
            raise UserError(f'{where}: "inputs" is {text!r}; expected a text.')
    elif task is None:
        raise UserError(
            f'{where}: no "inputs", and the file of the prompt "{name}" tells no task that could '
            "make a text of the other fields."
        )
    else:
        text = _text_of(row, where, get_task(task))
    try:
        return predictor.prepare(Example(prompt=name, inputs=text, labels=tuple(labels)))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _rows(lines: Iterable[str], name: str) -> Iterator[tuple[Row, str]]:
    """Yields each line as the row to give back and where it stands; skips empty lines."""
    from prompt_tuning.data.tables import check_characters, load_json

    for number, line in enumerate(_decoded(lines, name), start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            check_characters(line)
            row = load_json(line) if line.lstrip().startswith("{") else {"inputs": line}
        except ValueError as error:
            raise UserError(
                f"{where}: {error}; expected a text or one JSON object a line."
            ) from error
        yield row, where


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text ({error}).") from error


def _text_of(row: Row, where: str, task: "Task") -> str:
    from prompt_tuning.data.sources import bad_rows_named

    if isinstance(row.get("inputs"), str):
        return row["inputs"]
    with bad_rows_named(where, row):
        return task.inputs_of(row)


def _full_groups(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yields groups of `size` rows, the last of what is left."""
    rows = iter(rows)
    while group := list(itertools.islice(rows, size)):
        yield group


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


def _batch(
    inputs: Sequence[Sequence[int]], base: "Base", data: "Data"
) -> tuple[dict[str, Any], range]:
    """Returns token ids as a batch of `batch_size` rows, cut or padded to one of few lengths."""
    from prompt_tuning.data.vocabularies import EOS_ID, PAD_ID
    from prompt_tuning.parallel.mesh import shard_batch

    limit = data.lengths["inputs"]
    rows = [[*ids[: limit - 1], EOS_ID] for ids in inputs]
    length = _SHORTEST
    while length < max(map(len, rows)):
        length *= 2
    tokens = np.full((data.batch_size, min(length, limit)), PAD_ID, np.int32)
    tokens[:, 0] = EOS_ID  # rows without a text are ignored, but must not be empty
    for place, row in zip(tokens, rows, strict=False):
        place[: len(row)] = row
    return shard_batch({"encoder_input_tokens": tokens}, base.mesh), range(len(rows))


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _line(row: Row, prediction: str) -> str:
    return json.dumps({**row, "prediction": prediction}, ensure_ascii=False) + "\n"


def _say_cut(number: int, length: int) -> None:
    from prompt_tuning.cli.session import say

    if number:
        say(f"{number} inputs were cut to {length} tokens.")


def _reading(path: str) -> contextlib.AbstractContextManager[IO[str]]:
    try:
        return contextlib.nullcontext(sys.stdin) if path == "-" else open(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror}.") from error


def _writing(path: str) -> contextlib.AbstractContextManager[IO[str]]:
    from prompt_tuning.cli.session import new_file

    return contextlib.nullcontext(sys.stdout) if path == "-" else new_file(path)


if __name__ == "__main__":
    run(main)
