"""`prompt-tuning ensemble`: several prompts of one frozen model, each alone and as a vote.

The rows are those of Lester et al. 2021, table 3: the average of the prompts, the best of them, and
the ensemble. The configuration is that of the first run folder among the prompts.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from prompt_tuning.analysis.tables import Table
from prompt_tuning.cli import configurables, session
from prompt_tuning.cli.parsers import parse
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.ensemble import Ballot, combinations
from prompt_tuning.models.stacking import UnlikeInjectionsError
from prompt_tuning.recipes import prompts, scoring
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.training.run import Evaluation

BASE = "runs/base.gin"


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table and one line of JSON."""
    _ensemble(parse("ensemble", argv))


def _ensemble(args: argparse.Namespace) -> None:
    _check_distinct(args.prompts)
    runs = [path for path in args.prompts if (Path(path) / session.CONFIG).is_file()]
    session.load_config(args, run=runs[0] if runs else None, defaults=[] if runs else [BASE])
    data = configurables.data()
    prediction = configurables.predict(data)
    base = session.load_base(data)
    injects = []
    for path in args.prompts:
        file = session.prompt_path(path, None) if path in runs else path
        adapter = base.load_adapter(file)
        prompts.check_target_form(data, adapter, file)
        task = adapter.metadata.task
        if task not in (None, data.name):
            session.say(f"{path} was trained on {task} and is scored on {data.name}.")
        injects.append(adapter.inject)
    split = args.split or prediction.split
    splits = load_splits(base, data, split)
    if scoring.withheld(splits):
        raise UserError(
            f"The labels of {data.name}'s {split} split are withheld, so an ensemble can't be "
            "scored on it; give --split validation."
        )

    with session.new_file(args.predictions or os.devnull) as file:

        def score(
            answer: Callable[[Ballot], str],
            ballots: Sequence[Sequence[Ballot]],
            splits: Sequence[TokenizedSplit],
        ) -> Evaluation:
            answers = [[answer(ballot) for ballot in of_task] for of_task in ballots]
            return scoring.score_of_answers(data, splits, answers)

        def ask(splits: Sequence[TokenizedSplit]) -> tuple[list[list[Ballot]], list[Evaluation]]:
            try:
                ballots = scoring.ballots(base, data, prediction, splits, injects)
            except UnlikeInjectionsError as error:
                raise UserError(
                    f"{', '.join(args.prompts)} can't vote in one program: {error} Give prompts of "
                    "one method."
                ) from None
            alone = [
                score(lambda ballot, i=i: ballot.given[i], ballots, splits)
                for i in range(len(injects))
            ]
            return ballots, alone

        ballots, members = ask(splits)
        development = members
        if split != prediction.split:
            _, development = ask(load_splits(base, data, prediction.split))
        weights = np.array([evaluation.score for evaluation in development])
        combined = {
            name: score(answer, ballots, splits) for name, answer in combinations(weights).items()
        }
        for row in combined["majority vote"].predictions:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{_table(args.prompts, members, combined).text()}\n")
    scores = [member.score for member in members]
    result = {
        "task": data.name,
        "split": split,
        "prompts": dict(zip(args.prompts, map(_numbers, members), strict=True)),
        "average": float(np.mean(scores)),
        "best": max(scores),
        **{name.replace(" ", "_"): _numbers(each) for name, each in combined.items()},
        "weights": dict(zip(args.prompts, map(float, weights), strict=True)),
    }
    print(json.dumps(result))


def _check_distinct(paths: Sequence[str]) -> None:
    if len(paths) < 2:
        raise UserError(f"An ensemble needs at least two prompts; found only {paths[0]}.")
    seen: set[Path] = set()
    for path in paths:
        if Path(path).resolve() in seen:
            raise UserError(f"{path} is given twice; each prompt has one vote.")
        seen.add(Path(path).resolve())


def _table(
    paths: Sequence[str], members: Sequence[Evaluation], combined: Mapping[str, Evaluation]
) -> Table:
    alone = [list(_numbers(member).values()) for member in members]

    return Table(
        title="",
        columns=("", *_numbers(members[0])),
        rows=[
            *([path, *numbers] for path, numbers in zip(paths, alone, strict=True)),
            ["average", *map(float, np.mean(alone, axis=0))],
            ["best", *max(alone, key=lambda numbers: numbers[-1])],
            *([name, *_numbers(each).values()] for name, each in combined.items()),
        ],
    )


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    return {**evaluation.metrics, "score": evaluation.score}
