"""`prompt-tuning evaluate`: scores a saved prompt from a run folder or a prompt file.

For a run trained by itself, the score of the best prompt is bit-identical to that measured during
training: the same compiled program runs on the same batches. For a member of a population, it is
equal up to rounding. If the labels are withheld, as in a leaderboard's test split, predictions are
only written, for `prompt-tuning submit`. Per-class scores are printed to stderr.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.analysis.class_scores import MOST_LABELS, class_scores
from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.files import new_file
from prompt_tuning.parallel.processes import is_first, joined
from prompt_tuning.recipes import prompts, scoring
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.scripts import report
from prompt_tuning.recipes.splits import load_splits


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints one line of JSON."""
    args = parse("evaluate", argv)

    loading.load_config(args, run=args.run)
    with joined(configurables.processes(), report):
        _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
    path = loading.chosen_prompt(args)
    data = configurables.data()
    prediction = configurables.predict(data)
    split = args.split or prediction.split
    base = loading.load_base(data)
    inject, metadata = prompts.open_prompt(base, data, path)
    if metadata.task not in (None, data.name) and is_first():
        say(f"{path} was trained on {metadata.task} and is scored on {data.name}.")
    splits = load_splits(base, data, split)
    withheld = scoring.withheld(splits)
    if withheld and not args.predictions:
        raise UserError(
            f"The labels of {data.name}'s {split} split are withheld, so it can't be scored; add "
            "--predictions FILE to write the predictions, or --split validation."
        )
    result = {"task": data.name, "split": split, "prompt": path}
    written = args.predictions if is_first() else None
    with new_file(written or os.devnull) as file:
        if withheld:
            rows = scoring.answers(base, data, prediction, splits, inject)
            result["predictions"] = len(rows)
        else:
            found = scoring.scorer(base, data, prediction, splits)(inject)
            rows = found.predictions
            result |= {**found.metrics, "score": found.score}
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not is_first():
        return
    print(json.dumps(result))
    if not withheld:
        _say_class_scores(data.tasks, rows)
    measured = metadata.score is not None and "score" in result
    if measured and (data.name, split) == (metadata.task, prediction.split):
        same = "the same" if metadata.score == result["score"] else "not the same"
        say(f"Training measured {metadata.score} at step {metadata.step}: {same}.")


def _say_class_scores(tasks: Sequence[Task], rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints precision, recall and F1 of each label, for tasks with few labels."""
    for task in tasks:
        if len(task.labels or ()) > MOST_LABELS:
            continue
        own = [row for row in rows if row["task"] == task.name]
        if found := class_scores(own, task.labels):
            name = f"{task.name}, by class" if len(tasks) > 1 else "By class"
            say(f"{name}:\n{found.scores_table.text()}")
            answers = [row["prediction"] for row in own]
            if other := [text for text in answers if text not in found.labels]:
                say(
                    f"{len(other)} of {len(answers)} answers are none of the labels; the first is "
                    f"{other[0]!r}."
                )
