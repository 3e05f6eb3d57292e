"""Draws what run.py has scored, prompt tuning beside model tuning, and writes a table of it.

    python experiments/domain_shift/plot.py FOLDER
    python experiments/domain_shift/plot.py FOLDER --metrics accuracy f1 \\
      --title "Accuracy on other paraphrases" --output experiments/paraphrase_transfer/results

The first is Table 1 of the paper, the second Table 2.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from transfer import write_transfer

from prompt_tuning.recipes.scripts import run as with_one_line_errors


def main(argv: Sequence[str]) -> None:
    """Reads the scores and writes the figure and the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--metrics", nargs="+", default=["f1"], help="the first is drawn")
    parser.add_argument("--title", default="F1 on other domains", help="of the figure")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    stem = options.output / options.output.resolve().parent.name
    text, paths = write_transfer(options.folder, stem, options.metrics, options.title)
    print(text, *paths, sep="\n")


if __name__ == "__main__":
    with_one_line_errors(main)
