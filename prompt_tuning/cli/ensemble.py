"""`prompt-tuning ensemble`: scores several prompts of one frozen model and their vote.

The rows are those of Lester et al. 2021, table 3: the mean score of the prompts, the best, and the
ensemble's. The configuration is that of the first run folder among the prompts.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prompt_tuning.analysis.tables import Table
from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, new_file
from prompt_tuning.recipes import ensembles, prompts
from prompt_tuning.recipes.say import say
from prompt_tuning.training.run import Evaluation

BASE = "runs/base.gin"


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table and one line of JSON."""
    args = parse("ensemble", argv)
    _check_distinct(args.prompts)
    runs = [path for path in args.prompts if (as_path(path) / loading.CONFIG).is_file()]
    loading.load_config(args, run=runs[0] if runs else None, defaults=[] if runs else [BASE])
    data = configurables.data()
    prediction = configurables.predict(data)
    base = loading.load_base(data)
    injects = []
    for path in args.prompts:
        file = loading.prompt_path(path, None) if path in runs else path
        inject, metadata = prompts.open_prompt(base, data, file)
        if metadata.task not in (None, data.name):
            say(f"{path} was trained on {metadata.task} and is scored on {data.name}.")
        injects.append(inject)
    split = args.split or prediction.split
    with new_file(args.predictions or os.devnull) as file:
        votes = ensembles.vote(base, data, prediction, injects, split)
        for row in votes.combined["majority vote"].predictions:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{_table(args.prompts, votes.alone, votes.combined).text()}\n")
    scores = [member.score for member in votes.alone]
    result = {
        "task": data.name,
        "split": split,
        "prompts": dict(zip(args.prompts, map(_scores, votes.alone), strict=True)),
        "average": float(np.mean(scores)),
        "best": max(scores),
        **{name.replace(" ", "_"): _scores(each) for name, each in votes.combined.items()},
        "weights": dict(zip(args.prompts, votes.weights, strict=True)),
    }
    print(json.dumps(result))


def _check_distinct(paths: Sequence[str]) -> None:
    if len(paths) < 2:
        raise UserError(f"An ensemble needs at least two prompts; found only {paths[0]}.")
    seen: set[FilePath] = set()
    for path in paths:
        found = as_path(path)
        found = found.resolve() if isinstance(found, Path) else found
        if found in seen:
            raise UserError(f"{path} is given twice; each prompt has one vote.")
        seen.add(found)


def _table(
    paths: Sequence[str], members: Sequence[Evaluation], combined: Mapping[str, Evaluation]
) -> Table:
    alone = [list(_scores(member).values()) for member in members]
    return Table(
        title="",
        columns=("", *_scores(members[0])),
        rows=[
            *([path, *scores] for path, scores in zip(paths, alone, strict=True)),
            ["average", *map(float, np.mean(alone, axis=0))],
            ["best", *max(alone, key=lambda scores: scores[-1])],
            *([name, *_scores(each).values()] for name, each in combined.items()),
        ],
    )


def _scores(evaluation: Evaluation) -> dict[str, float]:
    return {**evaluation.metrics, "score": evaluation.score}
