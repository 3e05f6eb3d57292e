"""Writes the small English T5's scores and those of the majority class, as a table and two figures.

python experiments/real_text/plot.py --data_dir FOLDER [--output experiments/real_text/results]

FOLDER contains the tasks' official files, as for the sweeps. The majority class is that of the
training examples, scored on the development set by the task's own metrics.
"""

import argparse
import collections
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prompt_tuning.analysis.sweep_plots import plot_bars
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.files import writing
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps import results
from prompt_tuning.sweeps.results import Row, write_table
from prompt_tuning.training import logging

METHODS = {"prompt_tuning": "prompt tuning", "model_tuning": "model tuning"}
"""What a sweep's name says after `real_text_`, to what the table calls the method."""
MAJORITY = "majority class"
_PANELS_ACROSS = 4


def main(argv: Sequence[str]) -> None:
    """Reads both sweeps, writes the tables and the figures, and prints the scores."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="the folder of the official files")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the sweeps are")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    rows, curves = collect(options.runs)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    rows += [majority_class(get_task(task), options.data_dir) for task in tasks]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    options.output.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, tasks)
    (options.output / "scores.md").write_text(text)
    shown = [{**row, "task": short(row["task"])} for row in rows]
    scores = plot_bars(
        sorted(shown, key=lambda row: row["task"]),
        options.output / "scores.png",
        x="task",
        bar="method",
        xlabel="task",
        title="Development score of a T5 of 6.0M parameters",
    )
    written = write_table(
        [{name: row.get(name) for name in columns} for row in rows], options.output / "scores"
    )
    majority = {row["task"]: row["score"] for row in rows if row["method"] == MAJORITY}
    drawn = plot_curves(curves, majority, options.output / "curves.png")
    print(text, scores, drawn, *written, *write_table(curves, options.output / "curves"), sep="\n")


def collect(runs: Path) -> tuple[list[Row], list[Row]]:
    """Returns a row for each run of both sweeps, and one for each of their evaluations.

    Raises:
      UserError: a sweep hasn't finished a run, or one lacks a task that the other has.
    """
    rows: list[Row] = []
    curves: list[Row] = []
    for name, method in METHODS.items():
        folder = runs / f"real_text_{name}"
        for row in results.read_rows(folder):
            rows.append({**row, "method": method})
            curves += curve(folder / row["folder"], rows[-1])
    tasks = {row["task"] for row in rows}
    for method in METHODS.values():
        if left := tasks - {row["task"] for row in rows if row["method"] == method}:
            raise UserError(f"No run of {method} on {', '.join(sorted(left))}; finish the sweep.")
    return rows, curves


def majority_class(task: Task, data_dir: str) -> Row:
    """Returns what always answering with the most frequent training label scores."""
    targets = collections.Counter(each.targets for each in task.examples("train", data_dir))
    ((label, _),) = targets.most_common(1)
    examples = [
        {**each.metadata, "targets": each.targets} for each in task.examples("validation", data_dir)
    ]
    metrics = task.evaluate(examples, [label] * len(examples))
    return {"method": MAJORITY, "task": task.name, **metrics, "score": task.score(metrics)}


def curve(folder: Path, row: Row) -> list[Row]:
    """Returns a run's development scores, a row for each evaluation."""
    told = {name: row[name] for name in ("method", "task", "SEED")}
    return [
        {**told, "step": each["step"], "score": each["eval/score"]}
        for each in logging.read_rows(folder / "metrics.jsonl")
        if "eval/score" in each
    ]


def short(task: str) -> str:
    """Returns a task's name without its benchmark's: "rte" for "superglue_rte"."""
    return task.partition("_")[2]


def markdown(rows: Sequence[Row], tasks: Sequence[str]) -> str:
    """Returns a table with a line for each task."""
    methods = [MAJORITY, *METHODS.values()]
    lines = [["task", *methods], ["---"] * (1 + len(methods))]
    for task in sorted(tasks, key=short):
        cells = [task]
        for method in methods:
            found = [r["score"] for r in rows if (r["task"], r["method"]) == (task, method)]
            spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
            cells.append(f"{statistics.fmean(found):.3f}{spread}")
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot_curves(curves: Sequence[Row], majority: Mapping[str, float], path: Path) -> Path:
    """Draws the mean development score over seeds against the step, a panel for each task."""
    # As the bars have them.
    names = sorted([MAJORITY, *METHODS.values()])
    colors = {name: f"C{place}" for place, name in enumerate(names)}
    tasks = sorted({row["task"] for row in curves}, key=short)
    lines = math.ceil(len(tasks) / _PANELS_ACROSS)
    figure = Figure(figsize=(10, 2.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(lines, _PANELS_ACROSS, squeeze=False).flat)
    for task, axes in zip(tasks, panels, strict=False):
        axes.axhline(majority[task], color=colors[MAJORITY], linestyle="--", label=MAJORITY)
        for method in METHODS.values():
            at: dict[int, list[float]] = {}
            for row in curves:
                if (row["task"], row["method"]) == (task, method):
                    at.setdefault(row["step"], []).append(row["score"])
            means = [statistics.fmean(at[step]) for step in sorted(at)]
            axes.plot(sorted(at), means, color=colors[method], label=method)
        axes.set_title(short(task), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1)
    for axes in panels[len(tasks) :]:
        axes.axis("off")
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("development score", fontsize=10)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="lower right", frameon=False)
    with writing(path, fix="Give another place for the picture."):
        figure.savefig(path, dpi=150)
    return path


if __name__ == "__main__":
    with_one_line_errors(main)
