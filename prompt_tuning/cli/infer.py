"""`prompt-tuning infer`: answers lines of text or jsonl with a prompt, as they come.

A line of text is the model's input as it stands. A JSON object is answered by its "inputs", or,
without that, by the text that the task makes of its fields (TFDS's names). Every answer is a
JSON object with its "prediction", in the order of the input.
"""

import contextlib
import itertools
import json
import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.cli.configurables import Base, Data
    from prompt_tuning.data.tasks.task import Task

_SHORTEST = 16
"""The shortest padded input, in tokens; longer ones are padded to it times a power of two."""

Row = dict[str, Any]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("infer", "Answers lines of text or jsonl with a prompt; writes jsonl.")
    parser.add_prompt_arguments()
    parser.add_argument("--input", default="-", metavar="FILE", help="- is standard input")
    parser.add_argument("--output", default="-", metavar="FILE", help="- is standard output")
    args = parser.parse(argv)

    from prompt_tuning.cli import configurables, scoring, session
    from prompt_tuning.evaluation.evaluator import predict

    session.load_config(args, run=args.run)
    path = session.prompt_path(args.run, args.prompt)
    data = configurables.data()
    prediction = configurables.predict(data)
    base = session.load_base(data)
    prompt, _ = session.load_prompt_for(base, path)
    inject = session.inject_prompt(base, prompt)
    task = data.tasks[0]
    predictor = scoring.predictor_for(base, data, task, prediction)

    name = "standard input" if args.input == "-" else args.input
    # Only standard input may be somebody typing. What is sampled depends on how rows are grouped,
    # and must not depend on how fast they come.
    waits = args.input != "-" or prediction.decoding.method == "sample"
    group = _full_groups if waits else _as_they_come
    cut = 0
    with _reading(args.input) as lines, _writing(args.output) as output:
        for number, rows in enumerate(group(_rows(lines, name, task), data.batch_size)):
            ids = [base.vocabulary.encode(text) for _, text in rows]
            cut += sum(len(row) >= data.lengths["inputs"] for row in ids)
            answers = predict(
                predictor,
                base.params,
                inject,
                [_batch(ids, base, data)],
                seed=prediction.seed + number,
            )
            for (row, _), (_, text) in zip(rows, answers, strict=True):
                output.write(json.dumps({**row, "prediction": text}, ensure_ascii=False) + "\n")
            output.flush()
    if cut:
        session.say(f"{cut} inputs were cut to {data.lengths['inputs']} tokens.")


def _rows(lines: Iterable[str], name: str, task: "Task") -> Iterator[tuple[Row, str]]:
    """Yields each line as the row to give back and the text to answer; skips empty lines."""
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        if not line.lstrip().startswith("{"):
            yield {"inputs": line}, line
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON ({error}); expected one object a line.") from error
        yield row, _text_of(row, where, task)


def _text_of(row: Row, where: str, task: "Task") -> str:
    from prompt_tuning.data.sources import bad_rows_named

    if isinstance(row.get("inputs"), str):
        return row["inputs"]
    with bad_rows_named(where, row):
        unlabelled = {"idx": None, "label": None, "answers": []}
        return next(iter(task.render({**unlabelled, **row}, False))).inputs


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
