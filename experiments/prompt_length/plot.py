"""Draws Figure 3a from a sweep's folder, and writes its table.

python experiments/prompt_length/plot.py FOLDER [--output experiments/prompt_length/results]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_means
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import read_rows, write_table


def main(argv: Sequence[str]) -> None:
    """Reads the sweep and writes the figure and the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    rows = read_rows(options.folder)
    scores = macro_scores(rows, by=("model", "PROMPT_LENGTH"))
    options.output.mkdir(parents=True, exist_ok=True)
    tasks = ", ".join(sorted({row["task"] for row in rows}))
    figure = plot_means(
        scores,
        options.output / "prompt_length.png",
        x="PROMPT_LENGTH",
        line="model",
        order=sorted({row["PROMPT_LENGTH"] for row in rows}),
        xlabel="prompt length, virtual tokens",
        title=f"Mean development score of {tasks}",
    )
    print(figure, *write_table(rows, options.output / "prompt_length"), sep="\n")


if __name__ == "__main__":
    with_one_line_errors(main)
