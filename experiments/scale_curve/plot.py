"""The scale curve's table, and the paper's Figure 1 with the gap under it; run.py draws them.

What is missing is told, and the tasks are drawn that all models have.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_scale_curve
from prompt_tuning.analysis.trends import GapTrend, gap_trend
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import (
    PROVENANCE,
    Row,
    pivot,
    read_rows,
    read_table,
    write_table,
)

HERE = Path(__file__).parent
SUFFIXES = {"miniature": "", "quick": "_quick", "sweep": "_t5"}
"""What the gin files' names begin with, to what the names of their sweeps end in."""
SEEDS = {"miniature": 3, "quick": 1, "sweep": 3}

EXCLUDED = {"tinyworld_cb": "only Large was taught its skill, so it would show a lesson, not size"}
"""Tasks whose scores are in the table, but not in a mean or in the trend, and why."""

MULTITASK = "multi-task model tuning"
DESIGN = "prompt design"
PROMPT, MODEL = "prompt tuning", "model tuning"
METHODS = {
    "prompt_tuning": PROMPT,
    "model_tuning": MODEL,
    "lora": "LoRA",
    "prefix_tuning": "prefix tuning",
    "multitask": MULTITASK,
    "design": DESIGN,
}
"""What a sweep's name says after `scale_curve_`, to what the figure calls the method."""

COLUMNS = (
    *("method", "model", "task", "SEED", "LEARNING_RATE", "score", "test_score"),
    *("best_step", "steps", "trained_parameters", "frozen_parameters", "wall_seconds"),
    *(*PROVENANCE, "run"),
)


def collect(runs: Path, suffix: str, published: Path) -> list[Row]:
    """Returns a row for each finished run and task of every method.

    Of a mixture, the tasks are kept that the other methods have too; its mean is not among them.
    Its texts may begin with the task's name, which a task's own never do.

    Args:
      runs: the folder that the sweeps are in.
      suffix: see `SUFFIXES`.
      published: the table of earlier results, whose rows are kept unless there are newer ones.
    """
    rows = [
        {**row, "method": method}
        for name, method in METHODS.items()
        if any((folder := runs / f"scale_curve_{name}{suffix}").glob("runs/*.json"))
        for row in read_rows(folder)
    ]
    designs = sorted((runs / f"scale_curve_design{suffix}").glob("*.json"))
    rows += [{**row, "method": DESIGN} for path in designs for row in json.loads(path.read_text())]
    before = read_table(published) if published.exists() else []
    tasks = {row["task"] for row in [*before, *rows] if row["method"] not in (MULTITASK, DESIGN)}
    if not tasks:
        raise UserError(f"{runs} has no results of the scale curve; start run.py first.")
    kept = {}
    for row in [*before, *rows]:
        row["task"] = row["task"].removesuffix("_with_name")
        if row["task"] in tasks:
            kept[tuple(row[name] for name in COLUMNS[:4])] = row
    order = list(METHODS.values())
    return [
        {name: row.get(name) for name in COLUMNS}
        for _, row in sorted(kept.items(), key=lambda item: (order.index(item[0][0]), item[0]))
    ]


def complete(rows: Sequence[Row], seeds: int) -> tuple[list[Row], list[str]]:
    """Returns the rows to draw, and what is missing.

    Drawn are the tasks, except for `EXCLUDED`, that prompt tuning and model tuning have at every
    model, or all tasks if they share none; and of each method and model the seeds that have all of
    these.

    Args:
      rows: of `collect`.
      seeds: how many each method but prompt design is to have.
    """
    rows = [row for row in rows if row["task"] not in EXCLUDED]
    every = {row["task"] for row in rows}
    models = dict.fromkeys(row["model"] for row in rows)
    have = {(row["method"], row["model"], row["task"]) for row in rows}
    compared = {row["method"] for row in rows} & {PROMPT, MODEL}
    tasks = {
        task
        for task in every
        if {(method, model, task) for method in compared for model in models} <= have
    } or every
    found: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        of_seeds = found.setdefault((row["method"], row["model"]), {})
        of_seeds.setdefault(row["SEED"], []).append(row)
    kept: list[Row] = []
    missing: list[str] = []
    for method in METHODS.values():
        for model in models:
            of_seeds = found.get((method, model), {})
            drawn = [[row for row in group if row["task"] in tasks] for group in of_seeds.values()]
            whole = [group for group in drawn if len(group) == len(tasks)]
            kept += [row for group in whole for row in group]
            number = sum(map(len, of_seeds.values()))
            expected = len(every) * (1 if method == DESIGN else seeds)
            if number < expected and any(method == row["method"] for row in rows):
                missing.append(
                    f"{method}, {model}: {number} of {expected} scores; seeds drawn: {len(whole)}"
                )
    return kept, missing


def gap_of(rows: Sequence[Row], parameters: dict[str, int]) -> tuple[list[int], GapTrend] | None:
    """Returns model tuning minus prompt tuning at the sizes that have both for all tasks.

    None if there are fewer than two such sizes. A seed's runs have the same batches, so the gap is
    that of each seed.
    """
    scores: dict[str, dict[Any, float]] = {name: {} for name in METHODS.values()}
    for row in rows:
        scores[row["method"]][row["model"], row["task"], row["SEED"]] = row["score"]
    tasks = sorted({row["task"] for row in rows})
    seeds = sorted({row["SEED"] for row in rows})
    models = sorted({row["model"] for row in rows}, key=parameters.__getitem__)

    def gap(*run: Any) -> float:
        return scores[MODEL].get(run, math.nan) - scores[PROMPT].get(run, math.nan)

    gaps = np.array([[[gap(m, t, s) for s in seeds] for t in tasks] for m in models])
    whole = [place for place, each in enumerate(gaps) if not np.isnan(each).all(axis=1).any()]
    if len(whole) < 2:
        return None
    sizes = [parameters[models[place]] for place in whole]
    return sizes, gap_trend(gaps[whole], sizes)


def reference() -> list[Row]:
    """Returns the paper's points of Figure 1 as far as they are known."""
    with (HERE.parent / "paper_reference.csv").open() as file:
        return [
            {
                "model": row["model"].replace("t5_1_1_", "t5_1_1_lm100k_"),
                "method": PROMPT,
                "score": float(row["value"]) / 100,
                "verified": row["verified"] == "yes",
            }
            for row in csv.DictReader(file)
            if row["figure"] == "Figure 1"
        ]


def table(
    rows: Sequence[Mapping[str, Any]], down: Sequence[str], parameters: dict[str, int]
) -> str:
    """Returns a Markdown table of mean scores, with the models by their size."""
    header, lines = pivot([dict(row) for row in rows], down=down, across="model")
    models = sorted(header[len(down) :], key=parameters.__getitem__)
    places = [*range(len(down)), *(header.index(model) for model in models)]
    heads = [*down, *(f"{model} ({parameters[model] / 1e6:.3g}M)" for model in models)]
    order = {str(row["method"]): place for place, row in enumerate(rows)}
    lines.sort(key=lambda line: [order.get(cell, cell) for cell in line[: len(down)]])
    body = [heads, ["---"] * len(heads), *([line[place] for place in places] for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in body)


def draw(kind: str, runs: Path, output: Path) -> None:
    """Writes the tables and the figure of what there is, and prints them.

    Args:
      kind: one of SUFFIXES.
      runs: the folder that the sweeps are in.
      output: where to; its table is continued.
    """
    rows = collect(runs, SUFFIXES[kind], output / "scale_curve.parquet")
    paths = write_table(rows, output / "scale_curve")
    # Some methods start from the LM-adapted models, others from those before.
    rows = [{**row, "model": row["model"].replace("_lm100k", "")} for row in rows]
    split = "development" if any(row["test_score"] is None for row in rows) else "test"
    if split == "test":
        rows = [{**row, "score": row["test_score"]} for row in rows]
    drawn, missing = complete(rows, SEEDS[kind])
    parameters = {row["model"]: row["frozen_parameters"] for row in rows}
    scores = macro_scores(drawn, by=("method", "model"))
    gap = gap_of(drawn, parameters)
    tasks = sorted({row["task"] for row in drawn})
    shown = ", ".join(task.partition("_")[2] for task in tasks)
    names = f": {shown}" if len(tasks) < len({row["task"] for row in rows}) else ""
    title = f"Mean {split} score of {len(tasks)} tasks{names}"
    tables = [f"{title}\n", table(scores, ["method"], parameters)]
    if gap is not None:
        trend = gap[1]
        tables += [
            "| parameters | gap | 95% interval |\n| --- | --- | --- |\n"
            + "".join(
                f"| {size:,} | {mean:.3f} | {low:.3f} to {high:.3f} |\n"
                for size, mean, (low, high) in zip(
                    gap[0], trend.gaps, trend.gap_intervals, strict=True
                )
            ),
            f"Slope of the gap: {trend.slope:.3f} per tenfold size, "
            f"95% interval {trend.slope_interval[0]:.3f} to {trend.slope_interval[1]:.3f}.\n",
        ]
    both = [row for row in rows if row["method"] in (PROMPT, MODEL)]
    if both:
        tables.append(table(both, ["task", "method"], parameters))
    excluded = {task: why for task, why in EXCLUDED.items() if any(r["task"] == task for r in rows)}
    if excluded:
        lines = "".join(f"- {task}: {why}\n" for task, why in excluded.items())
        tables.append(f"Not in the mean and the trend:\n\n{lines}")
    if missing:
        tables.append("Missing:\n\n" + "".join(f"- {line}\n" for line in missing))
    text = "\n".join(tables)
    (output / "scale_curve.md").write_text(text)
    figure = plot_scale_curve(
        scores,
        output / "scale_curve.png",
        parameters=parameters,
        methods=list(METHODS.values()),
        title=title,
        reference=reference(),
        gap=gap,
    )
    print(text, figure, *paths, sep="\n")


def draw_search(runs: Path, output: Path) -> None:
    """Writes the table of learning rates, if they have been searched."""
    folder = runs / "scale_curve_search"
    if any(folder.glob("runs/*.json")):
        columns = [name for name in COLUMNS if name != "test_score"]
        before = output / "learning_rates.parquet"
        known = [*(read_table(before) if before.exists() else []), *read_rows(folder)]
        by_run = {row["run"]: {name: row.get(name) for name in columns} for row in known}
        rows = list(by_run.values())
        write_table(rows, output / "learning_rates")
        header, lines = pivot(rows, down=["method", "task"], across="LEARNING_RATE")
        body = [header, ["---"] * len(header), *lines]
        text = "".join(f"| {' | '.join(line)} |\n" for line in body)
        (output / "learning_rates.md").write_text(text)
        print(text)
