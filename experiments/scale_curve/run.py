"""Runs the scale curve, from the first sweep to the figure; resumes if interrupted.

    python experiments/scale_curve/run.py             the miniature
    python experiments/scale_curve/run.py --plot      only its figure, from the committed results
    python experiments/scale_curve/run.py --quick     a subset: three sizes, three tasks
    python experiments/scale_curve/run.py --real      T5 1.1 LM100K, Small to XXL

Each method is a separate sweep. Several workers can share the work: start this on each, with a
shared folder of runs. Runs in the committed table are not trained again. Prompt design, the last
method, trains nothing: it is T5's own text, with the task's name, and no solved example.
"""

import argparse
import ast
import datetime
import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plot import DESIGN, HERE, METHODS, SUFFIXES, draw, draw_search

from prompt_tuning.files import atomic_write
from prompt_tuning.recipes.scripts import COMMAND, output_of
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import provenance, read_rows
from prompt_tuning.training.run_folder import versions

ROUNDS = {"miniature": ("[0]", "[1, 2]")}
"""The seeds of the miniature: first one of every method."""
DESIGNED = {
    "miniature": ("tinyworld", ("validation", "test")),
    "quick": ("tinyworld", ("validation", "test")),
    "sweep": ("superglue", ("validation",)),
}
"""The mixture of all tasks, and the splits with labels."""


def main(argv: Sequence[str]) -> int:
    """Runs what hasn't run yet, and draws what there is; 1 if a run has failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", dest="kind", action="store_const", const="quick")
    which.add_argument("--real", dest="kind", action="store_const", const="sweep")
    parser.set_defaults(kind="miniature")
    parser.add_argument("--plot", action="store_true", help="train nothing, draw what there is")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the sweeps are")
    parser.add_argument("--output", type=Path, help="where the table and the figure go")
    options = parser.parse_args(argv)
    kind, runs = options.kind, options.runs
    output = options.output or (
        HERE / "results" if kind == "miniature" else runs / f"scale_curve_{kind}"
    )
    status = 0
    if not options.plot:
        if kind == "miniature":
            status |= sweep("search", runs / "scale_curve_search", output / "learning_rates")
        for seeds in ROUNDS.get(kind, (None,)):
            for name in METHODS:
                file = f"{kind}{'' if name == 'prompt_tuning' else f'_{name}'}"
                folder = runs / f"scale_curve_{name}{SUFFIXES[kind]}"
                if (HERE / f"{file}.gin").exists():
                    status |= sweep(file, folder, output / "scale_curve", seeds)
            design(kind, runs)
    output.mkdir(parents=True, exist_ok=True)
    draw_search(runs, output)
    draw(kind, runs, output)
    return status


def sweep(file: str, folder: Path, published: Path, seeds: str | None = None) -> int:
    """Trains a sweep but for the runs in the published table; returns its exit status."""
    print(f"== {file}{'' if seeds is None else f', seeds {seeds}'}", flush=True)
    command = [*COMMAND, "sweep", str(HERE / f"{file}.gin"), f"--folder={folder}"]
    if (table := published.with_suffix(".parquet")).exists():
        command.append(f"--done={table}")
    if seeds is not None:
        command.append(f"--gin.SEEDS={seeds}")
    return subprocess.run(command).returncode


def design(kind: str, runs: Path) -> None:
    """Scores prompt design, once, on every model that prompts were trained for here."""
    sweep = runs / f"scale_curve_prompt_tuning{SUFFIXES[kind]}"
    if not any(sweep.glob("runs/*.json")):
        return
    print(f"== {DESIGN}", flush=True)
    benchmark, splits = DESIGNED[kind]
    folder = runs / f"scale_curve_design{SUFFIXES[kind]}"
    folder.mkdir(parents=True, exist_ok=True)
    for row in {row["model"]: row for row in read_rows(sweep)}.values():
        path = folder / f"{row['model']}.json"
        if not path.exists():
            (model,) = (f for f in ast.literal_eval(row["gin_file"]) if f.startswith("models/"))
            found = {split: score_design(model, benchmark, split) for split in splits}
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            of_model = {
                **{"model": row["model"], "SEED": 0, "trained_parameters": 0},
                **{"frozen_parameters": row["frozen_parameters"], **provenance(versions(), date)},
            }
            rows = [
                {
                    **of_model,
                    **{"task": task, "score": score, "test_score": found.get("test", {}).get(task)},
                }
                for task, score in found["validation"].items()
            ]
            with atomic_write(path, fix="Give another folder by --runs.") as file:
                file.write(json.dumps(rows).encode())


def score_design(model: str, benchmark: str, split: str) -> dict[str, float]:
    """Returns each task's score of T5's text, with the likeliest label as the answer."""
    output = output_of(
        [
            *("evaluate", "--no_prompt", f"--gin_file={model}"),
            *(f"--gin_file=tasks/{benchmark}.gin", "--gin_file=runs/evaluate.gin"),
            *(f"--gin.MIXTURE_OR_TASK_NAME='{benchmark}_with_name'", "--gin.predict.method='rank'"),
            *("--split", split),
        ]
    )
    metrics: dict[str, list[float]] = {}
    for name, value in json.loads(output.splitlines()[-1]).items():
        if "/" in name:
            metrics.setdefault(name.partition("/")[0], []).append(value)
    return {task: statistics.fmean(values) for task, values in metrics.items()}


if __name__ == "__main__":
    with_one_line_errors(main)
