"""Draws prompt tuning beside model tuning from one paraphrase task to another, and writes Table 2.

python experiments/paraphrase_transfer/plot.py FOLDER [--output FOLDER]

The scores are those of experiments/domain_shift/run.py.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet

from prompt_tuning.analysis.transfer import plot_transfer, transfer_table
from prompt_tuning.cli.__main__ import run as with_one_line_errors
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import write_table


def main(argv: Sequence[str]) -> None:
    """Reads the scores and writes the figure and the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    scored = options.folder / "transfer.parquet"
    if not scored.exists():
        raise UserError(
            f"There is no {scored}; score the sweep's runs with domain_shift/run.py first."
        )
    rows = pyarrow.parquet.read_table(scored).to_pylist()
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "paraphrase_transfer"
    text = transfer_table(rows, metrics=("accuracy", "f1"))
    stem.with_suffix(".md").write_text(text)
    figures = plot_transfer(rows, stem, "accuracy", "Accuracy on other paraphrases")
    print(text, *figures, *write_table(rows, stem), sep="\n")


if __name__ == "__main__":
    with_one_line_errors(main)
