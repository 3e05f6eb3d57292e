"""Evaluates ensembles of each task's prompts of a sweep, and writes and draws Table 3.

    python experiments/ensembling/plot.py FOLDER [--output experiments/ensembling/results]

`prompt_tuning.ensemble` evaluates each task's prompts; results are kept in FOLDER/ensembles and
reused.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import prompt_tuning as pt
from prompt_tuning.analysis.sweep_plots import plot_bars
from prompt_tuning.files import atomic_write
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import Row, read_rows, write_table

VOTES = ("majority_vote", "weighted_vote", "mean_probability")


def main(argv: Sequence[str]) -> None:
    """Scores what hasn't been, writes the table and the figure."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(options.folder):
        groups.setdefault((row["model"], row["task"]), []).append(row)
    rows = [
        {"model": model, "task": task, "prompts": len(members), **scored(options.folder, members)}
        for (model, task), members in groups.items()
    ]
    options.output.mkdir(parents=True, exist_ok=True)
    figure = draw(rows, options.output / "ensembling.png")
    text = markdown(rows)
    (options.output / "ensembling.md").write_text(text)
    flat = [{name: _cell(value) for name, value in row.items()} for row in rows]
    print(text, figure, *write_table(flat, options.output / "ensembling"), sep="\n")


def scored(folder: Path, members: Sequence[Row]) -> Row:
    """Returns the scores of the prompts alone, their average and best, and those of the votes."""
    kept = folder / "ensembles" / f"{members[0]['model']}-{members[0]['task']}.json"
    if not kept.exists():
        base = pt.load_run(folder / members[0]["folder"]).base
        runs = [pt.load_run(folder / row["folder"], base) for row in members]
        alone = {str(run.folder): run.score for run in runs}
        found = {
            "prompts": {name: {"score": score} for name, score in alone.items()},
            "average": statistics.fmean(alone.values()),
            "best": max(alone.values()),
            **{
                name.replace(" ", "_"): {**votes.metrics, "score": votes.score}
                for name, votes in pt.ensemble(runs).items()
            },
        }
        kept.parent.mkdir(exist_ok=True)
        with atomic_write(kept, fix="Make the sweep's folder writable.") as file:
            file.write(json.dumps(found).encode())
    found = json.loads(kept.read_text())
    return {
        "alone": [each["score"] for each in found["prompts"].values()],
        "average": found["average"],
        "best": found["best"],
        **{name: found[name]["score"] for name in VOTES if name in found},
    }


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table, with a last line of means over the tasks."""
    columns = ["average", "best", *(name for name in VOTES if name in rows[0])]
    heads = ["model", "task", *(name.replace("_", " ") for name in columns)]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        spread = statistics.stdev(row["alone"])
        average = f"{row['average']:.3f} ± {spread:.3f}"
        rest = (f"{row[name]:.3f}" for name in columns[1:])
        lines.append([row["model"], row["task"], average, *rest])
    means = (f"{statistics.fmean(row[name] for row in rows):.3f}" for name in columns)
    lines.append(["", "mean", *means])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draws the prompts alone, with their spread, beside the best of them and their vote."""
    points: list[Row] = []
    for row in rows:
        x = f"{row['task']}\non {row['model']}".replace("tinyworld_", "").replace("superglue_", "")
        points += [{"x": x, "line": "one prompt", "score": score} for score in row["alone"]]
        points.append({"x": x, "line": "the best of five", "score": row["best"]})
        points.append({"x": x, "line": "majority vote", "score": row["majority_vote"]})
    return plot_bars(
        points,
        path,
        x="x",
        bar="line",
        xlabel="task and model",
        title="Development score of five prompts, alone and together",
    )


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list) else value


if __name__ == "__main__":
    with_one_line_errors(main)
