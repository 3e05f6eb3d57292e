"""`prompt-tuning design`: scores text prompts, zero- and few-shot, on the frozen model.

The baseline of Lester et al. 2021, figure 1. `data/designs.py` defines designs.
"""

import argparse
import json
from collections.abc import Sequence

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.recipes.designs import Designs, table


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table and one line of JSON."""
    args = parse("design", argv)
    designs = asked_for(args)
    split = args.split or designs.split
    scored = designs.score_all(split)
    print(f"{table(scored).text()}\n")
    results = [each.to_json() for each in scored]
    print(json.dumps({"task": designs.task, "split": split, "seed": args.seed, "results": results}))


def asked_for(args: argparse.Namespace) -> Designs:
    """Returns the designs that a command's arguments select."""
    loading.load_config(args, defaults=["runs/base.gin"])
    data = configurables.data()
    return Designs(
        data,
        configurables.predict(data),
        lambda: loading.load_base(data),
        templates=args.templates,
        names=args.design,
        shots=args.shots,
        seed=args.seed,
        generate=args.generate,
    )
