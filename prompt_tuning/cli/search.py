"""`prompt-tuning search`: selects a text prompt on the development split, scores it on another."""

import json
from collections.abc import Sequence

from prompt_tuning.cli.design import asked_for
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.designs import table


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table of the candidates and one line of JSON."""
    args = parse("search", argv)
    designs = asked_for(args)
    if args.score_on == designs.split:
        raise UserError(
            f"--score_on is {args.score_on}, the split on which the prompt is selected "
            "(predict.split), so its score there would be optimistic; give another, such as test."
        )
    candidates = designs.candidates()
    scored = designs.score_all(designs.split)
    # `max` keeps the first of equal scores.
    best = max(range(len(scored)), key=lambda i: scored[i].evaluation.score)
    print(f"{table(scored).text()}\n")
    result = {
        "task": designs.task,
        "seed": args.seed,
        "candidates": len(scored),
        "split": designs.split,
        "best": scored[best].to_json(),
    }
    if args.score_on:
        found = designs.score(*candidates[best], args.score_on)
        result |= {args.score_on: found.to_json()}
    print(json.dumps(result))
