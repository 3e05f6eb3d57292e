"""Draws what run.py has scored, prompt tuning beside model tuning, and writes the paper's table.

python experiments/domain_shift/plot.py FOLDER [--output experiments/domain_shift/results]

For experiments/paraphrase_transfer too, with `--output experiments/paraphrase_transfer/results`.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from prompt_tuning.analysis.sweep_plots import plot_means
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import write_table

METHODS = ("model tuning", "prompt tuning")


def main() -> None:
    """Reads the scores and writes the figure and the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    scored = options.folder / "transfer.parquet"
    if not scored.exists():
        raise UserError(f"There is no {scored}; score the sweep's runs with run.py first.")
    rows = pyarrow.parquet.read_table(scored).to_pylist()
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output.resolve().parent.name
    several = len({row["model"] for row in rows}) > 1
    for row in rows:
        row["line"] = f"{row['method']}, {row['model']}" if several else row["method"]
        row["pair"] = f"{row['trained on']}\n> {row['task']}"
    figure = plot_means(
        rows,
        options.output / f"{stem}.png",
        x="pair",
        line="line",
        order=list(dict.fromkeys(row["pair"] for row in rows)),
        xlabel="trained on > scored on",
        title="Score of what was picked on the first, on the second",
    )
    text = table(rows)
    (options.output / f"{stem}.md").write_text(text)
    kept = [{k: v for k, v in row.items() if k not in ("line", "pair")} for row in rows]
    print(text, figure, *write_table(kept, options.output / stem), sep="\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the means of both methods and their difference, as in the paper's tables 1 and 2."""
    lines = ["| model | trained on | scored on | model tuning | prompt tuning | difference |"]
    lines.append("|---|---|---|---|---|---|")
    keys = dict.fromkeys((row["model"], row["trained on"], row["task"]) for row in rows)
    for model, trained, task in keys:
        cells, means = [], []
        for method in METHODS:
            scores = [
                row["score"]
                for row in rows
                if (row["model"], row["trained on"], row["task"]) == (model, trained, task)
                and row["method"] == method
            ]
            if not scores:
                raise UserError(f"No run of {method} on {model} was scored on {task}.")
            means.append(statistics.fmean(scores))
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            cells.append(f"{means[-1]:.3f} ± {spread:.3f}")
        cells.append(f"{means[1] - means[0]:+.3f}")
        lines.append(f"| {' | '.join((model, trained, task, *cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
