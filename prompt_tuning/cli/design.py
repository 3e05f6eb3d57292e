"""`prompt-tuning design`: scores text prompts, zero- and few-shot, on a model that is not trained.

The baseline of Lester et al. 2021, figure 1; what a design is, is in `data/designs.py`.
"""

import json
from collections.abc import Sequence

from prompt_tuning.cli import designing
from prompt_tuning.cli.parsers import parse


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table and one line of JSON."""
    args = parse("design", argv)
    designs = designing.Designs(args)
    split = args.split or designs.split
    scored = designs.score_all(split)
    print(f"{designing.table(scored).text()}\n")
    results = [each.numbers() for each in scored]
    print(json.dumps({"task": designs.task, "split": split, "seed": args.seed, "results": results}))
