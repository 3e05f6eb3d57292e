"""Draws Figure 3c from a sweep's folder, and writes its table.

python experiments/pretraining_objective/plot.py FOLDER [--output FOLDER]
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_means
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import read_rows, write_table

OBJECTIVES = ("span corruption", "span corruption\n+ sentinel", "LM adaptation")


def main(argv: Sequence[str]) -> None:
    """Reads the sweep and writes the figure and the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    rows = [
        {**row, "objective": objective(row), "frozen": frozen(row["model"])}
        for row in read_rows(options.folder)
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    lines, name = macro_scores(rows, by=("frozen", "objective")), "frozen"
    tasks = sorted({row["task"] for row in rows})
    title = f"Mean of {', '.join(tasks)}"
    if len({row["frozen"] for row in rows}) == 1:
        # With one size there is room for the tasks, beside their mean.
        by_task = [{**row, "line": row["task"]} for row in rows]
        lines = [*by_task, *({**row, "line": "mean"} for row in lines)]
        name, title = "line", "Development score"
    figure = plot_means(
        lines,
        options.output / "pretraining_objective.png",
        x="objective",
        line=name,
        order=OBJECTIVES,
        xlabel="what the frozen model has been trained on",
        title=title,
    )
    table = [{**row, "objective": row["objective"].replace("\n", " ")} for row in rows]
    print(figure, *write_table(table, options.output / "pretraining_objective"), sep="\n")


def objective(row: Mapping[str, Any]) -> str:
    """Returns what a row's frozen model was trained on, and how targets are written for it."""
    if row["data.target_sentinel"]:
        return OBJECTIVES[1]
    adapted = "_lm" in row["model"] or row["model"].endswith("_100")
    return OBJECTIVES[2 if adapted else 0]


def frozen(model: str) -> str:
    """Returns a model's name without its adaptation."""
    return model.replace("_lm100k", "").removesuffix("_100").removesuffix("_0")


if __name__ == "__main__":
    with_one_line_errors(main)
