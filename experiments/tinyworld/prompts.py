"""Tunes a prompt for each of TinyWorld's eight tasks, to measure what a frozen model can do.

    python experiments/tinyworld/prompts.py small

Each is one `prompt_tuning.train` run, with the paper's optimizer, initialized with the task's
label words, or with sampled vocabulary if answers are free text. The best prompt on the validation
split is scored once on the test split. The results are written to `results/prompts_<size>.json`,
task by task; tasks that are already there are skipped, so an interrupted run resumes.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import prompt_tuning as pt
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.tinyworld.tasks import TASKS

RESULTS = Path(__file__).parent / "results"


def tune(size: str, task: str, steps: int, length: int, seed: int, folder: Path) -> dict:
    """Returns what a run came to, and how its best prompt scores on the test split."""
    labels = get_task(task).labels
    initializer = pt.class_label(labels) if labels else pt.sampled_vocabulary()
    run = pt.train(
        pt.load(f"tinyworld_{size}"),
        pt.soft_prompt(length, initializer),
        task,
        folder=folder,
        steps=steps,
        seed=seed,
        eval_every=50,
        checkpoint_every=steps,
        settings={"train.tensorboard": False},
    )
    return {
        "prompt_length": length,
        "initialization": "class_label" if labels else "sampled_vocabulary",
        "steps": steps,
        "seed": seed,
        "best_step": run.best_step,
        "validation": run.metrics,
        "validation_score": round(run.score, 4),
        "test_score": round(run.evaluate("test").score, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", help="of a shipped model, such as small")
    parser.add_argument("--steps", type=int, default=600, help="of 32 examples")
    parser.add_argument("--prompt_length", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    path = RESULTS / f"prompts_{args.size}.json"
    table = json.loads(path.read_text()) if path.exists() else {}
    for task in (f"tinyworld_{name.lower()}" for name in TASKS):
        if task in table:
            continue
        folder = Path(tempfile.mkdtemp()) / "run"
        table[task] = tune(args.size, task, args.steps, args.prompt_length, args.seed, folder)
        shutil.rmtree(folder.parent)
        path.write_text(json.dumps(table, indent=1) + "\n")
    for task, row in table.items():
        print(f"{task:20s} validation {row['validation_score']:.3f}  test {row['test_score']:.3f}")
    print(f"The table is in {path}; the frozen model was pretrain.py's {args.size}.")


if __name__ == "__main__":
    main()
