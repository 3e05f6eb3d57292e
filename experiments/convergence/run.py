"""Trains the prompts of miniature.gin and `--tune`, and writes the table; resumes if interrupted.

python experiments/convergence/run.py
python experiments/convergence/run.py --plot      only the table, from the committed results
"""

import argparse
import ast
import datetime
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.analysis.figures import COLORS, new_axes, new_figure, save
from prompt_tuning.recipes.scripts import COMMAND, output_of
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import (
    PROVENANCE,
    Row,
    provenance,
    read_rows,
    read_table,
    write_table,
)

HERE = Path(__file__).parent
TASKS = (
    ("tinyworld_small", "tinyworld_boolq", "tinyworld_rte", 0.86),
    ("tinyworld_tiny", "tinyworld_wic", "tinyworld_wsc", 0.855),
)
"""The model, the task, the task of SPoT's prompt, and the target, as in miniature.gin."""
SWEEP, TUNED = Path("runs/convergence"), Path("runs/convergence_tune")
SOURCES = Path("runs/convergence_sources")
SETTINGS = {
    **{"DATA_DIR": "tinyworld:20000", "PROMPT_LENGTH": 20, "data.num_lengths": 2},
    **{"TRAIN_STEPS": 3000, "train.eval_every": 100, "train.tensorboard": False},
}
RECIPES = {
    "class_label": "the paper's",
    "sampled_vocabulary": "initialization: sampled vocabulary",
    "random_uniform": "initialization: random uniform",
    "from_file": "initialization: another task's prompt (SPoT)",
    "warmup": "warm-up of 500 steps",
    "clipping": "gradients clipped to a norm of 0.01",
    "train_adamw": "AdamW, warm-up of 500 steps",
    "residual_prompt": "residual prompt",
    "p_tuning": "P-tuning",
}
"""The last gin file of a run -> its recipe."""
TUNE = "`--tune`, 8 candidates"
COLUMNS = (
    *("task", "recipe", "model", "SEED", "target", "steps", "score", "best_step"),
    *("trained_parameters", "wall_seconds", *PROVENANCE, "run"),
)


def main(argv: Sequence[str]) -> int:
    """Runs what hasn't run yet, and writes the table; 1 if a run has failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--plot", action="store_true", help="train nothing, write what there is")
    options = parser.parse_args(argv)
    status = 0
    if not options.plot:
        for model, task, source, _ in TASKS:
            train(model, source, SOURCES / source)
            train(model, task, TUNED / task, "--tune", "--gin_file=runs/tune.gin")
        status = subprocess.run([*COMMAND, "sweep", str(HERE / "miniature.gin")]).returncode
    write()
    return status


def train(model: str, task: str, folder: Path, *tune: str) -> None:
    """Trains a prompt, or, with `--tune`, a population of them."""
    if (folder / "summary.json").exists():
        return
    settings = {**SETTINGS, "MODEL_DIR": str(folder)}
    target = next((target for _, name, _, target in TASKS if name == task), 1.0)
    initializer = "sampled_vocabulary" if task == "tinyworld_wsc" else "class_label"
    output_of(
        [
            *("train", f"--gin_file=models/{model}.gin", f"--gin_file=tasks/{task}.gin"),
            *(f"--gin_file=prompts/{initializer}.gin", "--gin_file=runs/train.gin", *tune),
            *(f"--gin.{name}={value!r}" for name, value in settings.items()),
            f"--gin.train.target_score={target}",
        ]
    )


def write() -> None:
    """Writes the table of the runs there are, and of those in the published table."""
    output = HERE / "results"
    output.mkdir(exist_ok=True)
    path = output / "convergence.parquet"
    rows = [*(read_table(path) if path.exists() else []), *found()]
    rows = list({row["run"]: row for row in rows}.values())
    order = [*RECIPES.values(), *(row["recipe"] for row in rows)]
    tasks = [task for _, task, _, _ in TASKS]
    rows.sort(key=lambda row: (tasks.index(row["task"]), order.index(row["recipe"]), row["run"]))
    write_table(rows, output / "convergence")
    heads = [f"{task}, {model}" for model, task, _, _ in TASKS]
    lines = [["recipe", *heads], ["---"] * (1 + len(heads))]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        of_recipe = [row for row in rows if row["recipe"] == recipe]
        lines.append([recipe, *(cell([r for r in of_recipe if r["task"] == t]) for t in tasks)])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (output / "convergence.md").write_text(text)
    print(text, draw(rows, heads, output / "convergence.png"), sep="\n")


def draw(rows: Sequence[Row], heads: Sequence[str], path: Path) -> Path:
    """Draws the steps of every run, hollow if they didn't suffice."""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows if row["recipe"] != TUNE))
    figure = new_figure(7.2, 4.2)
    axes = new_axes(figure)
    for place, (_, task, _, _) in enumerate(TASKS):
        for row in rows:
            if row["task"] == task and row["recipe"] != TUNE:
                axes.plot(
                    row["steps"],
                    recipes.index(row["recipe"]) + 0.24 * place - 0.12,
                    marker="o",
                    color=COLORS[place],
                    markerfacecolor=COLORS[place] if row["score"] >= row["target"] else "none",
                    linestyle="none",
                    label=heads[place],
                    clip_on=False,
                )
    axes.set_yticks(range(len(recipes)), recipes)
    axes.invert_yaxis()
    axes.set_xlim(0, SETTINGS["TRAIN_STEPS"])
    axes.set_xlabel("steps to the target; hollow: not reached")
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    figure.legend(by_label.values(), by_label, loc="outside upper right", ncols=2, frameon=False)
    return save(figure, path)


def cell(rows: Sequence[Row]) -> str:
    """Returns the steps of each seed to the target, or the best score without it."""
    return ", ".join(
        f"{row['steps']:,}" if row["score"] >= row["target"] else f"- ({row['score']:.2f})"
        for row in rows
    )


def found() -> list[Row]:
    """Returns a row for each finished run, and for each search by `--tune`."""
    rows: list[Row] = []
    targets = {task: target for _, task, _, target in TASKS}
    if any(SWEEP.glob("runs/*.json")):
        rows += [{**row, "recipe": recipe(row)} for row in read_rows(SWEEP)]
    for folder in sorted(TUNED.glob("*/")):
        if (folder / "summary.json").exists():
            summary = json.loads((folder / "summary.json").read_text())
            versions = json.loads((folder / "versions.json").read_text())
            steps = sum(member["steps"] for member in summary["members"])
            ended = (folder / "summary.json").stat().st_mtime
            date = datetime.datetime.fromtimestamp(ended, datetime.UTC)
            rows.append(
                {
                    **{**summary, **provenance(versions, date.isoformat(timespec="seconds"))},
                    **{"recipe": TUNE, "steps": steps, "run": f"tune-{summary['task']}"},
                }
            )
    return [
        {name: {**row, "target": targets[row["task"]]}.get(name) for name in COLUMNS}
        for row in rows
    ]


def recipe(row: Row) -> str:
    """Returns what a run of miniature.gin changes."""
    last = ast.literal_eval(row["gin_file"])[-1].rpartition("/")[2].removesuffix(".gin")
    if last == "class_label" and row["LEARNING_RATE"] is not None:
        return f"learning rate {row['LEARNING_RATE']}"
    return RECIPES[last]


if __name__ == "__main__":
    with_one_line_errors(main)
