"""Draws what run.py has scored, prompt tuning beside model tuning, and writes Table 1 of it.

python experiments/domain_shift/plot.py FOLDER [--output experiments/domain_shift/results]
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
    stem = options.output / "domain_shift"
    text, paths = write_transfer(options.folder, stem, ("f1",), "F1 on other domains")
    print(text, *paths, sep="\n")


if __name__ == "__main__":
    with_one_line_errors(main)
