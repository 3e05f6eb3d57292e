"""Trains each method inside the layers on TinyWorld, to check that it learns.

    python experiments/methods/train.py            all of them
    python experiments/methods/train.py lora ia3   these

Each is one training run on a frozen TinyWorld model. The best step is picked on the validation
split and scored once on the test split, from the saved file. The settings are those in
`configs/methods/`, except for the learning rate and the warm-up, which the papers chose for longer
runs with other models. Runs are in `--runs`, and results in `results/NAME.json`.
"""

import argparse
import functools
import json
import shutil
import time
from pathlib import Path

from prompt_tuning.checkpoints.adapters.adapter_files import best_file, load_adapter
from prompt_tuning.cli import loading
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.train import open_folder
from prompt_tuning.recipes import scoring
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.train import train
from prompt_tuning.training.run import count_parameters

RESULTS = Path(__file__).parent / "results"
# Name: gin file, and what differs from it.
SHORT = {"linear_warmup.warmup_steps": 20}
EXPERIMENTS = {
    "prefix": ("prefix", {"LEARNING_RATE": 3e-3}),
    "deep_prompt": ("deep_prompt", {"LEARNING_RATE": 3e-2}),
    "lora": ("lora", {"LEARNING_RATE": 1e-2, **SHORT}),
    "lora_all": (
        "lora",
        {
            "LEARNING_RATE": 1e-2,
            "lora.projections": ("query", "key", "value", "out", "wi_0", "wi_1", "wo"),
            **SHORT,
        },
    ),
    "ia3": ("ia3", {"LEARNING_RATE": 3e-2, **SHORT}),
    "adapter": ("adapter", {"LEARNING_RATE": 3e-3, **SHORT}),
    "adapter_pfeiffer": (
        "adapter",
        {"LEARNING_RATE": 3e-3, "adapter.placement": "pfeiffer", **SHORT},
    ),
    "norm_scales": ("norm_scales", {"LEARNING_RATE": 3e-2}),
    "model_tuning": ("model_tuning", {"frozen_model.dropout_rate": 0.0}),
    "model_tuning_multitask": (
        "model_tuning",
        {"MIXTURE_OR_TASK_NAME": "tinyworld", "frozen_model.dropout_rate": 0.0, "TRAIN_STEPS": 400},
    ),
}


def run(folder: Path, model: str, task: str, files: list[str], settings: dict) -> dict:
    """Trains, and returns what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    names = [f"models/{model}", f"tasks/{task}", "runs/train", *files]
    argv = [f"--gin_file={name}.gin" for name in names]
    argv += [f"--gin.{key}={value}" for key, value in settings.items()]
    argv += [f"--gin.MODEL_DIR={folder}"]
    loading.load_config(Parser("train", "").parse(argv))

    start = time.monotonic()
    job = loading.prepare()
    test_splits = load_splits(job.base, job.data, "test")
    score = scoring.scorer(job.base, job.data, job.prediction, test_splits)
    untrained = score(functools.partial(job.method.apply, job.trained)).score
    best = train(job, open_folder(job, overwrite=False)).best
    file = best_file(folder)
    assert file is not None
    return {
        "model": model,
        "task": job.data.name,
        "settings": {name: str(value) for name, value in settings.items()},
        "trained_parameters": count_parameters(job.trained),
        "steps": job.training.options.train_steps,
        "best_step": best.step,
        "untrained_test_score": round(untrained, 4),
        "validation_score": round(best.score, 4),
        "test_score": round(score(load_adapter(file).inject).score, 4),
        "bytes": file.stat().st_size,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of results; all of them if none is given")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"), help="their folders")
    parser.add_argument("--model", default="tinyworld_small", help="a shipped model")
    parser.add_argument("--task", default="tinyworld_rte", help="a task of TinyWorld")
    parser.add_argument("--steps", type=int, default=200, help="of 32 examples")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name in args.names or EXPERIMENTS:
        file, changes = EXPERIMENTS[name]
        settings = {
            "TRAIN_STEPS": args.steps,
            "PROMPT_LENGTH": 20,
            "train.eval_every": 20,
            "train.checkpoint_every": args.steps,
            "train.tensorboard": False,
            **changes,
        }
        if file not in ("prefix", "deep_prompt"):
            del settings["PROMPT_LENGTH"]
        row = run(args.runs / name, args.model, args.task, [f"methods/{file}"], settings)
        (RESULTS / f"{name}.json").write_text(json.dumps({"method": name, **row}, indent=1) + "\n")
        print(json.dumps({"method": name, **row}), flush=True)


if __name__ == "__main__":
    main()
