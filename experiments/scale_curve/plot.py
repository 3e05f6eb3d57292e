"""Collects the scale curve's sweeps into one table, and draws the paper's Figure 1.

    python experiments/scale_curve/plot.py                   the miniature
    python experiments/scale_curve/plot.py --runs-of sweep   the real models

A method is drawn at a model if all its runs there have finished; missing ones are reported.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_scale_curve
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import PROVENANCE, Row, pivot, read_rows, write_table

HERE = Path(__file__).parent
RUNS = Path("runs")
SUFFIXES = {"miniature": "", "quick": "_quick", "sweep": "_t5"}
"""What the gin files' names begin with, to what the names of their sweeps end in."""

MULTITASK = "multi-task model tuning"
DESIGN = "prompt design"
METHODS = {
    "prompt_tuning": "prompt tuning",
    "model_tuning": "model tuning",
    "multitask": MULTITASK,
    "prefix_tuning": "prefix tuning",
    "lora": "LoRA",
    "design": DESIGN,
}
"""What a sweep's name says after `scale_curve_`, to what the figure calls the method."""

COLUMNS = (
    *("method", "model", "task", "SEED", "score", "accuracy", "f1", "em", "squad/em", "squad/f1"),
    *("design", "best_step", "steps", "trained_parameters", "frozen_parameters", "wall_seconds"),
    *(*PROVENANCE, "run"),
)


def collect(runs: Path, suffix: str) -> list[Row]:
    """Returns a row for each finished run and task of every method.

    Of a mixture, the tasks are kept that the other methods have too; its mean is not among them.
    Its texts may begin with the task's name, which a task's own never do.
    """
    found = {
        method: read_rows(folder)
        for name, method in METHODS.items()
        if any((folder := runs / f"scale_curve_{name}{suffix}").glob("runs/*.json"))
    }
    designs = sorted((runs / f"scale_curve_design{suffix}").glob("*.json"))
    found[DESIGN] = [json.loads(path.read_text()) for path in designs]
    tasks = {row["task"] for method, rows in found.items() if method != MULTITASK for row in rows}
    if not tasks:
        raise UserError(f"{runs} has no results of the scale curve; start run.py first.")
    rows = [
        {**row, "method": method, "task": task}
        for method, of_method in found.items()
        for row in of_method
        if (task := row["task"].removesuffix("_with_name")) in tasks
    ]
    columns = [name for name in COLUMNS if any(name in row for row in rows)]
    return [{name: row.get(name) for name in columns} for row in rows]


def complete(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Returns the rows of each method and model that has them all, and what was left out."""
    tasks = {row["task"] for row in rows}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["model"]), []).append(row)
    most: dict[str, int] = {}
    for (method, _), group in groups.items():
        most[method] = max(most.get(method, 0), len(group))
    kept: list[Row] = []
    left: list[str] = []
    for (method, model), group in groups.items():
        missing = len(tasks - {row["task"] for row in group})
        if len(group) == most[method] and not missing:
            kept += group
        else:
            left.append(
                f"{method} on {model} is not drawn: {len(group)} scores, {missing} tasks missing"
            )
    return kept, left


def reference() -> list[Row]:
    """Returns the paper's points of Figure 1 as far as they are known."""
    with (HERE.parent / "paper_reference.csv").open() as file:
        return [
            {
                "model": row["model"].replace("t5_1_1_", "t5_1_1_lm100k_"),
                "method": "prompt tuning",
                "score": float(row["value"]) / 100,
                "verified": row["verified"] == "yes",
            }
            for row in csv.DictReader(file)
            if row["figure"] == "Figure 1"
        ]


def markdown(scores: Sequence[Row], parameters: dict[str, int]) -> str:
    """Returns a table with the methods in the figure's order, and the models by their size."""
    # Some methods start from the LM-adapted models, others from those before.
    scores = [{**row, "model": row["model"].replace("_lm100k", "")} for row in scores]
    parameters = {name.replace("_lm100k", ""): number for name, number in parameters.items()}
    header, lines = pivot(scores, down=["method"], across="model")
    models = sorted(header[1:], key=parameters.__getitem__)
    places = [0, *(header.index(model) for model in models)]
    heads = ["method", *(f"{model} ({parameters[model] / 1e6:.3g}M)" for model in models)]
    order = list(METHODS.values())
    lines.sort(key=lambda line: order.index(line[0]))
    table = [heads, ["---"] * len(heads), *([line[place] for place in places] for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def draw(kind: str, runs: Path, output: Path) -> None:
    """Writes the table and the figure of what there is, and prints them.

    Args:
      kind: one of SUFFIXES.
      runs: the folder that the sweeps are in.
      output: where to.
    """
    rows = collect(runs, SUFFIXES[kind])
    output.mkdir(parents=True, exist_ok=True)
    paths = write_table(rows, output / "scale_curve")
    drawn, left = complete(rows)
    scores = macro_scores(drawn, by=("method", "model"))
    parameters = {row["model"]: row["frozen_parameters"] for row in rows}
    table = markdown(scores, parameters)
    (output / "scale_curve.md").write_text(table)
    figure = plot_scale_curve(
        scores,
        output / "scale_curve.png",
        parameters=parameters,
        methods=list(METHODS.values()),
        title=f"Mean development score of {len({row['task'] for row in drawn})} tasks",
        reference=reference(),
    )
    print(table, *left, figure, *paths, sep="\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what run.py takes as well."""
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the sweeps are")
    parser.add_argument("--output", type=Path, help="where the table and the figure go")


def place(options: argparse.Namespace, kind: str) -> Path:
    """Returns where the table and the figure go."""
    folder = HERE / "results" if kind == "miniature" else options.runs / f"scale_curve_{kind}"
    return options.output or folder


def main(argv: Sequence[str]) -> None:
    """Reads the sweeps and writes the table and the figure."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--runs-of", choices=SUFFIXES, default="miniature")
    add_options(parser)
    options = parser.parse_args(argv)
    draw(options.runs_of, options.runs, place(options, options.runs_of))


if __name__ == "__main__":
    with_one_line_errors(main)
