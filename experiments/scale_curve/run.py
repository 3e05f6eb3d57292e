"""Runs the scale curve, from the first sweep to the figure; resumes if interrupted.

    python experiments/scale_curve/run.py             the miniature
    python experiments/scale_curve/run.py --quick     a subset: three sizes, three tasks
    python experiments/scale_curve/run.py --real      T5 1.1 LM100K, Small to XXL

Each method is a separate sweep, so several machines can share the work: run `prompt-tuning sweep
experiments/scale_curve/FILE` with `--shard` on each. Prompt design, the last method, trains
nothing: it scores every design of a task and takes the best on the development set, as the other
methods take their best step on it.
"""

import argparse
import ast
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plot import HERE, METHODS, SUFFIXES, add_options, draw, place

from prompt_tuning.files import atomic_write
from prompt_tuning.recipes.scripts import COMMAND, output_of
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import Row, read_rows


def main(argv: Sequence[str]) -> int:
    """Runs what hasn't run yet, and draws what there is; 1 if a run has failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", dest="kind", action="store_const", const="quick")
    which.add_argument("--real", dest="kind", action="store_const", const="sweep")
    parser.set_defaults(kind="miniature")
    add_options(parser)
    options = parser.parse_args(argv)
    status = 0
    for name, method in METHODS.items():
        file = HERE / f"{options.kind}{'' if name == 'prompt_tuning' else f'_{name}'}.gin"
        if file.exists():
            print(f"== {method}", flush=True)
            folder = options.runs / f"scale_curve_{name}{SUFFIXES[options.kind]}"
            command = [*COMMAND, "sweep", str(file), f"--folder={folder}"]
            status |= subprocess.run(command).returncode
    print("== prompt design", flush=True)
    design(options.runs, SUFFIXES[options.kind])
    draw(options.kind, options.runs, place(options, options.kind))
    return status


def design(runs: Path, suffix: str) -> None:
    """Scores prompt design on every model and task that prompt tuning was trained on."""
    rows = read_rows(runs / f"scale_curve_prompt_tuning{suffix}")
    trained = {(row["model"], row["task"]): row for row in rows}
    folder = runs / f"scale_curve_design{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    for (model, task), row in trained.items():
        path = folder / f"{model}-{task}.json"
        if not path.exists():
            best = best_design(ast.literal_eval(row["gin_file"]))
            print(f"{model} {task}: {best['score']:.3f}, {best['design']}", flush=True)
            kept = {name: row[name] for name in ("model", "task", "frozen_parameters")}
            row = {**kept, "SEED": 0, "trained_parameters": 0, **best}
            with atomic_write(path, fix="Give another folder by --runs.") as file:
                file.write(json.dumps(row).encode())


def best_design(gin_files: Sequence[str]) -> Row:
    """Returns the name and the scores of the best wording, with no solved example before it."""
    chosen = [file for file in gin_files if file.startswith(("models/", "tasks/"))]
    output = output_of(["design", *(f"--gin_file={file}" for file in chosen), "--shots", "0"])
    results = json.loads(output.splitlines()[-1])["results"]
    return max(results, key=lambda result: result["score"])


if __name__ == "__main__":
    with_one_line_errors(main)
