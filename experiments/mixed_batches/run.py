"""Predicts examples of many tasks in mixed batches and task by task, with their prompts (Figure 2).

    python experiments/mixed_batches/run.py FOLDER --model tinyworld_base

FOLDER is that of a sweep; for each of its tasks, the prompt with seed 0 on that model is used.
Both ways generate answers for the same development examples in the same order. The timed stream of
requests is answered a batch at a time: 32 at once, or each task's share of them. Both are timed in
turn, three times each, after a pass that compiles.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import prompt_tuning as pt
from prompt_tuning import Example, Predictor
from prompt_tuning.analysis.sweep_plots import plot_bars
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.task import Example as TaskExample
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import Row, read_rows, write_table

BATCH = 32
ROUNDS = 3
SPLIT = "validation"

Answers = list[str]


def main(argv: Sequence[str]) -> None:
    """Answers both ways, compares, times, and writes the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--examples", type=int, default=100, help="of each task")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    chosen = {
        row["task"]: options.folder / row["folder"]
        for row in read_rows(options.folder)
        if row["model"] == options.model and row["SEED"] == 0
    }
    if len(chosen) < 2:
        raise UserError(
            f"{options.folder} has prompts of {len(chosen)} tasks on {options.model}; expected two "
            "or more: another --model, or finish the sweep."
        )
    predictor = load(chosen)
    examples = {
        task: list(itertools.islice(get_task(task).examples(SPLIT), options.examples))
        for task in chosen
    }
    requests = [
        Example(prompt=task, inputs=example.inputs)
        for task, of_task in examples.items()
        for example in of_task
    ]
    # As users' questions come: of one task, then of another.
    order = np.random.default_rng(0).permutation(len(requests)).tolist()
    stream = [requests[place] for place in order]

    def mixed() -> Answers:
        return answer(predictor, stream, lambda batch: [batch])

    def by_task() -> Answers:
        return answer(predictor, stream, by_prompt)

    ways = {"mixed": mixed, "by task": by_task}
    found = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    rows = scores(examples, stream, found)
    options.output.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, {name: statistics.median(each) for name, each in seconds.items()}, stream)
    (options.output / "mixed_batches.md").write_text(text)
    figure = plot_bars(
        [
            {"task": row["task"].rpartition("_")[2], "batches": way, "score": row[f"score, {way}"]}
            for row in rows
            for way in ways
        ],
        options.output / "mixed_batches.png",
        x="task",
        bar="batches",
        xlabel="task",
        title=f"Development score of one frozen {options.model}, many prompts",
    )
    print(text, figure, *write_table(rows, options.output / "mixed_batches"), sep="\n")


def load(runs: dict[str, Path]) -> Predictor:
    """Returns the frozen model of the runs with the best prompt of each."""
    base = pt.load_run(next(iter(runs.values()))).base
    predictor = Predictor(base.config, base.params, base.vocabulary, batch_size=BATCH)
    for task, run in runs.items():
        predictor.add(task, pt.load_run(run, base).prompt)
    return predictor


def by_prompt(batch: Sequence[Example]) -> list[list[Example]]:
    """Splits a batch by the prompts that its examples name."""
    groups: dict[str, list[Example]] = {}
    for example in batch:
        groups.setdefault(example.prompt, []).append(example)
    return list(groups.values())


def answer(
    predictor: Predictor,
    stream: Sequence[Example],
    split: Callable[[Sequence[Example]], Sequence[Sequence[Example]]],
) -> Answers:
    """Answers a stream, a batch's worth at a time, each split as told; in the stream's order."""
    texts: Answers = []
    for start in range(0, len(stream), BATCH):
        batch = stream[start : start + BATCH]
        told = {
            id(example): found.text
            for part in split(batch)
            for example, found in zip(part, predictor.predict(part), strict=True)
        }
        texts += [told[id(example)] for example in batch]
    return texts


def scores(
    examples: dict[str, list[TaskExample]], stream: Sequence[Example], found: dict[str, Answers]
) -> list[Row]:
    """Returns each task's score both ways, and how many answers differ."""
    rows: list[Row] = []
    for name, of_task in examples.items():
        task = get_task(name)
        texts = {
            way: {
                asked.inputs: text
                for asked, text in zip(stream, answers, strict=True)
                if asked.prompt == name
            }
            for way, answers in found.items()
        }
        metadata = [{**each.metadata, "targets": each.targets} for each in of_task]
        row: Row = {"task": name, "examples": len(of_task)}
        for way, by_inputs in texts.items():
            given = [by_inputs[example.inputs] for example in of_task]
            row[f"score, {way}"] = task.score(task.evaluate(metadata, given))
        row["answers that differ"] = sum(
            texts["mixed"][example.inputs] != texts["by task"][example.inputs]
            for example in of_task
        )
        rows.append(row)
    return rows


def markdown(rows: Sequence[Row], seconds: dict[str, float], stream: Sequence[Example]) -> str:
    """Returns the table, and what was timed."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads)]
    lines += [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    rates = "; ".join(f"{name}: {len(stream) / took:.0f}" for name, took in seconds.items())
    ratio = seconds["by task"] / seconds["mixed"]
    return f"{table}\nExamples a second, {rates}. Mixed is {ratio:.2f} times as fast.\n"


if __name__ == "__main__":
    with_one_line_errors(main)
