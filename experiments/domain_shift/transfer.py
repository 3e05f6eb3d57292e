"""Tables 1 and 2 of the paper, for runs trained on one task and evaluated on another.

Rows are those of run.py: each with `model`, `method`, `trained on`, `task`
(scored on) and the metrics. A cell is a mean over seeds with its standard deviation.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from prompt_tuning.analysis.sweep_plots import plot_bars
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import write_table

Row = Mapping[str, Any]

METHODS = ("model tuning", "prompt tuning")


def write_transfer(
    folder: Path, stem: Path, metrics: Sequence[str], title: str
) -> tuple[str, list[Path]]:
    """Writes the tables and the pictures of a sweep's transfer; returns the text and the files.

    Args:
      folder: the sweep's, its runs scored on other tasks by experiments/domain_shift/run.py.
      stem: what is written, without its ending.
      metrics: those of the table; the first is drawn.
      title: above each picture.

    Raises:
      UserError: the runs haven't been scored, or one of the methods has no score of a task.
    """
    scored = folder / "transfer.parquet"
    if not scored.exists():
        raise UserError(
            f"There is no {scored}; score the sweep's runs with experiments/domain_shift/run.py "
            "first."
        )
    rows = pyarrow.parquet.read_table(scored).to_pylist()
    stem.parent.mkdir(parents=True, exist_ok=True)
    text = transfer_table(rows, metrics)
    stem.with_suffix(".md").write_text(text)
    figures = plot_transfer(rows, stem, metrics[0], title)
    return text, [*figures, *write_table(rows, stem)]


def transfer_table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Returns both methods' scores and their difference, as Markdown.

    Args:
      rows: one for each run and task.
      metrics: those to show; one that a task hasn't is left out.

    Raises:
      UserError: one of the methods has no score of a task.
    """
    lines = [
        f"| model | trained on | scored on | metric | {' | '.join(METHODS)} | difference |",
        "|---" * 7 + "|",
    ]
    for model, trained, task in dict.fromkeys(
        (row["model"], row["trained on"], row["task"]) for row in rows
    ):
        here = [
            row
            for row in rows
            if (row["model"], row["trained on"], row["task"]) == (model, trained, task)
        ]
        for metric in metrics:
            scores = {
                method: [
                    row[metric]
                    for row in here
                    if row["method"] == method and row.get(metric) is not None
                ]
                for method in METHODS
            }
            if not any(scores.values()):
                continue
            if missing := next((method for method in METHODS if not scores[method]), None):
                raise UserError(
                    f"No run of {missing} on {model} was scored on {task}; finish the sweep and "
                    "score it again."
                )
            means = [statistics.fmean(scores[method]) for method in METHODS]
            cells = [_cell(scores[method]) for method in METHODS]
            cells.append(f"{means[1] - means[0]:+.3f}")
            lines.append(f"| {' | '.join((model, trained, task, metric, *cells))} |")
    return "\n".join(lines) + "\n"


def plot_transfer(rows: Sequence[Row], stem: Path, metric: str, title: str) -> list[Path]:
    """Draws a metric of both methods beside each other, a picture for each model.

    Args:
      rows: as of `transfer_table`.
      stem: the pictures' path without ending; of several models each adds its name.
      metric: what is drawn.
      title: above each picture.

    Returns:
      the pictures' paths.
    """
    names = sorted({row[key] for row in rows for key in ("trained on", "task")})
    common = names[0][: names[0].rfind("_") + 1]
    if not all(name.startswith(common) for name in names):
        common = ""
    models = list(dict.fromkeys(row["model"] for row in rows))
    paths = []
    for model in models:
        shown = [
            {
                "pair": "{}\nto {}".format(
                    *(row[key].removeprefix(common) for key in ("trained on", "task"))
                ),
                "method": row["method"],
                "score": row[metric],
            }
            for row in rows
            if row["model"] == model
        ]
        name = stem.name if len(models) == 1 else f"{stem.name}_{model}"
        paths.append(
            plot_bars(
                shown,
                stem.with_name(f"{name}.png"),
                x="pair",
                bar="method",
                xlabel="trained on, to scored on",
                title=f"{title}, {model}",
            )
        )
    return paths


def _cell(scores: Sequence[float]) -> str:
    spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
    return f"{statistics.fmean(scores):.3f} ± {spread:.3f}"
