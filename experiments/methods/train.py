"""Trains each method inside the layers on TinyWorld, to check that it learns.

    python experiments/methods/train.py            all of them
    python experiments/methods/train.py lora ia3   these

Each is one training run on a frozen TinyWorld model. The best step is picked on the validation
split and scored once on the test split, from the saved file. The settings are those in
`configs/methods/`, except for the learning rate and the warm-up, which the papers chose for longer
runs with other models. Runs are in `--runs`, and results in `results/NAME.json`.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

import prompt_tuning as pt
from prompt_tuning.checkpoints.adapters.adapter_files import best_file
from prompt_tuning.training.keys import stream_key

RESULTS = Path(__file__).parent / "results"
ALL_PROJECTIONS = ("query", "key", "value", "out", "wi_0", "wi_1", "wo")


def scaled(rate):
    """Adafactor as T5 pre-trains with it."""
    return pt.adafactor(rate, multiply_by_parameter_scale=True, weight_decay=0.0)


# Name: method, optimizer, and other arguments of `pt.train`.
EXPERIMENTS = {
    "prefix": (pt.prefix(length=20), pt.adamw(3e-3), {}),
    "deep_prompt": (pt.deep_prompt(length=20), pt.adamw(3e-2), {}),
    "lora": (pt.lora(), pt.adamw(pt.linear_warmup(1e-2, 20)), {}),
    "lora_all": (
        pt.lora(projections=ALL_PROJECTIONS),
        pt.adamw(pt.linear_warmup(1e-2, 20)),
        {},
    ),
    "llama_adapter": (
        pt.llama_adapter(length=20),
        pt.adamw(pt.linear_warmup(1e-1, 20), weight_decay=0.02),
        {},
    ),
    "dora": (pt.dora(), pt.adamw(pt.linear_warmup(1e-2, 20)), {}),
    "vera": (pt.vera(), pt.adamw(pt.linear_warmup(1e-1, 20)), {}),
    "ia3": (pt.ia3(), scaled(pt.linear_warmup(3e-2, 20)), {}),
    "adapter": (pt.adapter(), pt.adamw(pt.linear_warmup(3e-3, 20)), {}),
    "adapter_pfeiffer": (
        pt.adapter(placement="pfeiffer"),
        pt.adamw(pt.linear_warmup(3e-3, 20)),
        {},
    ),
    "norm_scales": (pt.weights(("*norm/scale",)), pt.adamw(3e-2), {}),
    "model_tuning": (pt.weights(), scaled(1e-3), {}),
    "model_tuning_multitask": (pt.weights(), scaled(1e-3), {"task": "tinyworld", "steps": 400}),
}


def run(folder: Path, model: str, method, optimizer, arguments: Mapping) -> dict:
    """Trains, and returns what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    base = pt.load(model)
    start = time.monotonic()
    untrained = method(base)
    batch = {"encoder_input_tokens": np.ones((1, 1), np.int32), "task": np.zeros(1, np.int32)}
    values = untrained.init(stream_key(0, "prompt_init"), batch)
    first = pt.Adapter(method=untrained, trained=values, metadata=pt.PromptMetadata())
    task = arguments["task"]
    settings = {"train.tensorboard": False, **arguments.get("settings", {})}
    arguments = {**arguments, "folder": folder, "optimizer": optimizer, "settings": settings}
    trained = pt.train(base, method, **arguments)
    file = best_file(folder)
    assert file is not None
    return {
        "model": model,
        "task": task,
        "settings": json.loads((folder / "settings.json").read_text()),
        "trained_parameters": sum(leaf.size for leaf in jax.tree.leaves(values["params"])),
        "steps": arguments["steps"],
        "best_step": trained.best_step,
        "untrained_test_score": round(pt.evaluate(base, first, task, split="test").score, 4),
        "validation_score": round(trained.score, 4),
        "test_score": round(pt.evaluate(base, file, task, split="test").score, 4),
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
        method, optimizer, changes = EXPERIMENTS[name]
        arguments = {
            "task": args.task,
            "steps": args.steps,
            "eval_every": 20,
            "checkpoint_every": args.steps,
            **changes,
        }
        row = run(args.runs / name, args.model, method, optimizer, arguments)
        (RESULTS / f"{name}.json").write_text(json.dumps({"method": name, **row}, indent=1) + "\n")
        print(json.dumps({"method": name, **row}), flush=True)


if __name__ == "__main__":
    main()
