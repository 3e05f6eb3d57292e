"""Draws prompt tuning beside model tuning from one paraphrase task to another, and writes Table 2.

python experiments/paraphrase_transfer/plot.py FOLDER [--output FOLDER]

The scores are those of experiments/domain_shift/run.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.cli.__main__ import run as with_one_line_errors
from prompt_tuning.sweeps.transfer import write_transfer


def main(argv: Sequence[str]) -> None:
    """Reads the scores and writes the figure and the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    stem = options.output / "paraphrase_transfer"
    text, paths = write_transfer(
        options.folder, stem, ("accuracy", "f1"), "Accuracy on other paraphrases"
    )
    print(text, *paths, sep="\n")


if __name__ == "__main__":
    with_one_line_errors(main)
