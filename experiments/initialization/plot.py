"""Draws Figure 3b from a sweep's folder, and writes its table.

python experiments/initialization/plot.py FOLDER [--output experiments/initialization/results]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_means
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import read_rows, write_table

INITIALIZATIONS = ("random_uniform", "sampled_vocabulary", "class_label")


def main(argv: Sequence[str]) -> None:
    """Reads the sweep and writes the figure and the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    rows = [
        {**row, "initialization": initialization(row["gin_file"])}
        for row in read_rows(options.folder)
    ]
    scores = macro_scores(rows, by=("model", "initialization"))
    options.output.mkdir(parents=True, exist_ok=True)
    tasks = ", ".join(sorted({row["task"] for row in rows}))
    figure = plot_means(
        scores,
        options.output / "initialization.png",
        x="initialization",
        line="model",
        order=INITIALIZATIONS,
        xlabel="where the prompt starts",
        title=f"Mean development score of {tasks}",
    )
    print(figure, *write_table(rows, options.output / "initialization"), sep="\n")


def initialization(files: str) -> str:
    """Returns the initialization that a run's gin files choose."""
    for name in INITIALIZATIONS:
        if f"prompts/{name}.gin" in files:
            return name
    raise UserError(f"No initialization is among the gin files {files}.")


if __name__ == "__main__":
    with_one_line_errors(main)
