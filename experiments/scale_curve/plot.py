"""Collects the scale curve's sweeps into one table, and draws the paper's Figure 1 of it.

    python experiments/scale_curve/plot.py                  the miniature
    python experiments/scale_curve/plot.py --suffix _t5 --output runs/scale_curve_t5

A method is drawn at a model once all its runs there have finished; what is left out is told.
"""

import argparse
import csv
import json
from pathlib import Path

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_scale_curve
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import Row, pivot, read_rows, write_table

HERE = Path(__file__).parent
METHODS = {
    "prompt_tuning": "prompt tuning",
    "model_tuning": "model tuning",
    "multitask": "multi-task model tuning",
    "prefix_tuning": "prefix tuning",
    "lora": "LoRA",
}
"""What the sweeps' folders are called, and what the methods are."""
DESIGN = "prompt design"
KEPT = (
    "method",
    "model",
    "task",
    "SEED",
    "score",
    "accuracy",
    "f1",
    "em",
    "best_step",
    "steps",
    "trained_parameters",
    "frozen_parameters",
    "wall_seconds",
    "git_commit version",
    "run",
)


def collect(runs: Path, suffix: str) -> list[Row]:
    """Returns a row for each finished run and task of every method, without mixtures' means."""
    rows: list[Row] = []
    for name, method in METHODS.items():
        folder = runs / f"scale_curve_{name}{suffix}"
        if folder.is_dir():
            found = [
                row for row in read_rows(folder) if row["accuracy"] or row["task"] not in MEANS
            ]
            rows += [{"method": method, **row} for row in found]
    for path in sorted(runs.glob(f"scale_curve_design{suffix}/*.json")):
        rows += [{"method": DESIGN, **row} for row in json.loads(path.read_text())]
    if not rows:
        raise UserError(f"{runs} has no results of the scale curve; start run.py first.")
    return [{name: row.get(name) for name in KEPT} for row in rows]


MEANS = ("tinyworld", "superglue_and_dpr")
"""Mixtures, whose own rows are the means over their tasks."""


def complete(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Returns the rows of each method and model of which there are all, and what was left out."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["model"]), []).append(row)
    most: dict[str, int] = {}
    for (method, _), group in groups.items():
        most[method] = max(most.get(method, 0), len(group))
    kept: list[Row] = []
    left: list[str] = []
    for (method, model), group in groups.items():
        if len(group) == most[method]:
            kept += group
        else:
            left.append(f"{method} on {model}: {len(group)} of {most[method]} runs have finished")
    return kept, left


def reference() -> list[dict]:
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


def main() -> None:
    """Reads the sweeps and writes the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the sweeps are")
    parser.add_argument("--suffix", default="", help="of the sweeps' names: _t5, _quick")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    rows = collect(options.runs, options.suffix)
    options.output.mkdir(parents=True, exist_ok=True)
    paths = write_table(rows, options.output / "scale_curve")
    drawn, left = complete(rows)
    scores = macro_scores(drawn, by=("method", "model"))
    header, lines = pivot(scores, down=["method"], across="model")
    table = "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])
    (options.output / "scale_curve.md").write_text(f"{table}\n")
    figure = plot_scale_curve(
        scores,
        options.output / "scale_curve.png",
        parameters={row["model"]: row["frozen_parameters"] for row in rows},
        methods=[*METHODS.values(), DESIGN],
        title=f"Mean development score of {len({row['task'] for row in drawn})} tasks",
        reference=reference(),
    )
    print(table, *left, figure, *paths, sep="\n")


if __name__ == "__main__":
    main()
