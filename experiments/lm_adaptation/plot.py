"""Draws Figure 3d from a sweep's folder, and writes its table.

python experiments/lm_adaptation/plot.py FOLDER [--output experiments/lm_adaptation/results]

The number at the end of a model's name is its amount of adaptation: 0, 10, 50 or 100 %, or
thousands of steps. A model of T5 1.1 without "lm" in its name hasn't been adapted.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_means
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import read_rows, write_table

SIZES = ("small", "base", "large", "xl", "xxl")


def main(argv: Sequence[str]) -> None:
    """Reads the sweep and writes the figure and the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    rows = [{**row, **adaptation(row["model"])} for row in read_rows(options.folder)]
    options.output.mkdir(parents=True, exist_ok=True)
    tasks = sorted({row["task"] for row in rows})
    order = sorted({row["adapted"] for row in rows})
    lines = macro_scores(rows, by=("frozen", "adapted"))
    name = "frozen"
    if len({row["frozen"] for row in rows}) == 1:
        # With one size there is room for the tasks, beside their mean.
        by_task = [{**row, "line": row["task"]} for row in rows]
        lines = [*by_task, *({**row, "line": "mean"} for row in lines)]
        name = "line"
    figure = plot_means(
        lines,
        options.output / "lm_adaptation.png",
        x="adapted",
        line=name,
        order=order,
        xlabel=rows[0]["unit"],
        title="Development score" if name == "line" else f"Mean of {', '.join(tasks)}",
    )
    print(figure, *write_table(rows, options.output / "lm_adaptation"), sep="\n")


def adaptation(model: str) -> dict[str, Any]:
    """Returns a model's size, how far it is adapted, and in what unit."""
    if found := re.fullmatch(r"(tinyworld_\w+?)_(\d+)", model):
        unit = "LM adaptation, % of all its steps"
        return {"frozen": found[1], "adapted": int(found[2]), "unit": unit}
    if found := re.fullmatch(rf"(t5_1_1)(?:_lm(\d+)k)?_({'|'.join(SIZES)})", model):
        steps = int(found[2] or 0)
        frozen = f"{found[1]}_{found[3]}"
        return {"frozen": frozen, "adapted": steps, "unit": "LM adaptation, thousands of steps"}
    raise UserError(f"The name of the model {model} doesn't tell how far it is adapted.")


if __name__ == "__main__":
    with_one_line_errors(main)
