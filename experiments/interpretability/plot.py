"""Computes the paper's measures of prompts' neighbors (Section 7) for the prompts of a sweep.

    python experiments/interpretability/plot.py FOLDER [--output FOLDER]

The figure is a heat map of the similarity of the shortest prompts on the smallest model.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import prompt_tuning as pt
from prompt_tuning.analysis import clusters, pictures
from prompt_tuning.analysis.similarity import similarity_matrix, within_and_between
from prompt_tuning.recipes import prompts
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import Row, read_rows, write_table

NEIGHBORS = 5
MEASURES = ("tightness", "by chance", "labels kept", "labels anywhere", "distinct", "norm")


def main(argv: Sequence[str]) -> None:
    """Measures every prompt, writes the tables and the figure."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    rows: list[Row] = []
    prompts: list[np.ndarray] = []
    examples: list[str] = []
    for row in read_rows(options.folder):
        prompt, measured, nearest = measure(options.folder / row["folder"])
        start = "class label" if "class_label" in row["gin_file"] else "sampled vocabulary"
        kept = {name: row[name] for name in ("model", "task", "PROMPT_LENGTH", "SEED", "score")}
        rows.append({**kept, "start": start, **measured})
        prompts.append(prompt)
        if row["SEED"] == 0 and row["PROMPT_LENGTH"] == min(r["PROMPT_LENGTH"] for r in rows):
            examples.append(f"**{row['task']} on {row['model']}, {start}.** {nearest}")
        print(".", end="", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    text = f"{markdown(rows)}\n" + "\n\n".join(examples) + "\n"
    (options.output / "interpretability.md").write_text(text)
    alike = draw(rows, prompts, options.output / "interpretability.png")
    paths = write_table(rows, options.output / "interpretability")
    print(f"\n{text}\n{alike}", *paths, sep="\n")


def measure(run: Path) -> tuple[np.ndarray, Row, str]:
    """Returns a run's best prompt, its measures, and the neighbors of its first positions."""
    opened = pt.load_run(run)
    base, prompt = opened.base, opened.prompt
    found = prompts.neighbors_of(base, prompt, k=NEIGHBORS)
    table = np.asarray(base.embedding, np.float32)[: base.vocabulary.num_pieces]
    labels = list(dict.fromkeys(label for task in opened.data.tasks for label in task.labels or ()))
    ids = [base.vocabulary.encode(label) for label in labels]
    persistence = clusters.label_persistence(prompt, table, labels, ids)
    norms = np.linalg.norm(prompt, axis=1).mean() / np.linalg.norm(table, axis=1).mean()
    measured = {
        "tightness": float(clusters.tightness(found, table).mean()),
        "by chance": clusters.tightness_by_chance(table, NEIGHBORS),
        "labels kept": _share([each.start_rank for each in persistence]),
        "labels anywhere": _share([each.best_rank for each in persistence]),
        "distinct": clusters.distinct_share(found),
        "norm": float(norms),
    }
    words = prompts.neighbors_of(base, prompt, k=NEIGHBORS, words=True)
    nearest = "; ".join(" ".join(each.piece for each in position) for position in words[:6])
    return prompt, measured, nearest


def _share(ranks: Sequence[int | None]) -> float | None:
    """Returns how many of the class labels are among a position's neighbors; None without any."""
    if not ranks:
        return None
    return statistics.fmean(rank is not None and rank <= NEIGHBORS for rank in ranks)


def markdown(rows: Sequence[Row]) -> str:
    """Returns means over tasks and seeds, a line for each model, start and length."""
    heads = ["model", "start", "length", "score", *MEASURES]
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["start"], row["PROMPT_LENGTH"]), []).append(row)
    lines = [heads, ["---"] * len(heads)]
    for key, group in groups.items():
        columns = ([row[name] for row in group] for name in ("score", *MEASURES))
        told = ([value for value in column if value is not None] for column in columns)
        means = (f"{statistics.fmean(values):.2f}" if values else "-" for values in told)
        lines.append([*map(str, key), *means])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw(rows: Sequence[Row], prompts: Sequence[np.ndarray], path: Path) -> str:
    """Draws the similarity of prompts; returns its means within a task and between tasks."""
    model, length = rows[0]["model"], min(row["PROMPT_LENGTH"] for row in rows)
    chosen = [
        place
        for place, row in enumerate(rows)
        if row["model"] == model and row["PROMPT_LENGTH"] == length
    ]
    chosen.sort(key=lambda place: (rows[place]["task"], rows[place]["start"], rows[place]["SEED"]))
    matrix = similarity_matrix([prompts[place] for place in chosen], "mean")
    tasks = [rows[place]["task"] for place in chosen]
    names = [
        f"{rows[place]['task'].rpartition('_')[2]} {rows[place]['start']} {rows[place]['SEED']}"
        for place in chosen
    ]
    within, between = within_and_between(matrix, tasks)
    pictures.plot_similarity(path, names, matrix)
    told = f"{within:.2f} within a task, {between:.2f} between tasks"
    return f"Cosine similarity of prompts' means: {told}\n{path}"


if __name__ == "__main__":
    with_one_line_errors(main)
