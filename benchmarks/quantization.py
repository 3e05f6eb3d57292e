"""Measures the effect of quantizing the frozen model on memory, step time and accuracy.

    python benchmarks/quantization.py [--quick] [--parts accuracy plan process]

Four formats of the frozen weights are compared: float32; bfloat16; kernels in int8; kernels in
nf4 (`prompt_tuning/models/quantization.py`), the other weights in bfloat16.

- accuracy: a prompt is trained on TinyWorld Base by `prompt_tuning.train`, for each of two tasks
  and each format, and its best prompt is scored on the test split; the prompt trained with float32
  weights is also scored with the other formats without more training.
- plan: the bytes that a training step needs on one H200 by `prompt-tuning plan`, for T5 1.1 of
  several sizes with a 100-token prompt, batch 8, encoder 128, decoder 8, layers recomputed. GPUs'
  compiler, `prompt-tuning[cuda]`, should be installed; a GPU isn't needed.
- process: T5 1.1 Small with random weights is loaded from a bfloat16 file in a fresh process, which
  makes a few steps of that size: bytes of the weights, peak resident memory of the process (VmHWM,
  including Python and JAX) and the median step time. Inputs of products have the machine's fastest
  dtype, and float32 for float32 weights.

The results of each part replace those in benchmarks/results/quantization.json; the others are kept.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import prompt_tuning as pt
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.cli.plan import run_apart
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.host_memory import return_memory_after_compiling
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.hardware import fastest_matmul_dtype
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.models.t5 import T5
from prompt_tuning.planning.machines import find_machine
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

RESULTS = Path(__file__).parent / "results" / "quantization.json"
WAYS = ("float32", "bfloat16", "int8", "nf4")
TASKS = ("tinyworld_rte", "tinyworld_boolq")
BATCH, PROMPT, SOURCE, TARGET = 8, 100, 128, 8

QUICK = T5Config(
    name="quick",
    vocab_size=512,
    embed_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


def settings(way: str) -> dict[str, Any]:
    """Returns the fields of a `Compute` that hold weights in this way."""
    if way == "float32":
        return {"param_dtype": "float32"}
    found = {"param_dtype": "bfloat16", "matmul_dtype": fastest_matmul_dtype("cpu")}
    return found if way == "bfloat16" else {**found, "quantization": way, "unroll": 1}


def accuracy(steps: int) -> dict[str, Any]:
    """Returns the scores of trained and of moved prompts, by task and format."""
    found: dict[str, Any] = {"model": "tinyworld_base", "prompt_length": 20, "steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            found[task] = {}
            for way in WAYS:
                run = Path(folder) / f"{task}_{way}"
                base = _loaded(way)
                found[task][way] = {
                    **_trained(base, task, run, steps),
                    "moved_test_score": _tested(base, Path(folder) / f"{task}_float32", task),
                }
                print(f"{task} {way}: {found[task][way]}", file=sys.stderr, flush=True)
    return found


def _loaded(way: str) -> pt.Base:
    fields = {name: value for name, value in settings(way).items() if name != "matmul_dtype"}
    given = {f"frozen_model.{name}": value for name, value in fields.items()}
    return pt.load("tinyworld_base", settings={"frozen_model.unroll": 0, **given})


def _trained(base: pt.Base, task: str, folder: Path, steps: int) -> dict[str, float]:
    run = pt.train(
        base,
        pt.soft_prompt(length=20, initializer=pt.class_label(get_task(task).labels)),
        task,
        folder=folder,
        steps=steps,
        eval_every=50,
        checkpoint_every=steps,
        settings={"train.tensorboard": False},
    )
    return {
        "best_step": run.best_step,
        "validation_score": run.score,
        "test_score": _tested(base, folder, task),
    }


def _tested(base: pt.Base, run: Path, task: str) -> float:
    return pt.evaluate(base, run, task, split="test").score


def plan(names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the bytes of a step compiled for one H200, by model and format."""
    found: dict[str, Any] = {}
    for name in names:
        found[name] = {}
        for way in WAYS:
            dtype = "float32" if way == "float32" else "bfloat16"
            given = {**settings(way), "matmul_dtype": "", "compute_dtype": dtype}
            given |= {"remat": True, "unroll": 1}
            flags = [f"--gin.frozen_model.{field}={value!r}" for field, value in given.items()]
            lengths = {"inputs": SOURCE, "targets": TARGET}
            flags += [
                f"--gin_file=models/{name}.gin",
                f"--gin.TASK_FEATURE_LENGTHS={lengths}",
                f"--gin.PROMPT_LENGTH={PROMPT}",
                f"--gin.BATCH_SIZE={BATCH}",
            ]
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "plan.json"
                flags += ["--accelerator=h200", "--no_advice", f"--json={file}"]
                run_apart(flags, find_machine("h200"), capture_output=True).check_returncode()
                planned = json.loads(file.read_text())
            parts = ("weights", "temporaries", "memory")
            found[name][way] = {part: planned["memory"][part] for part in parts}
            found["compiler"] = planned["compiler"]
            print(f"{name} {way}: {found[name][way]}", file=sys.stderr, flush=True)
    return found


def process(config: T5Config, steps: int) -> dict[str, Any]:
    """Returns the memory and step time of a fresh process with the model, by format."""
    found: dict[str, Any] = {"model": config.name, "steps": steps}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{config.name}.safetensors"
        stored = init_params(config, jax.random.key(0), Compute(param_dtype="bfloat16"))
        save_weights(path, stored, config)
        for way in WAYS:
            command = [sys.executable, __file__, "--load", str(path), way, str(steps)]
            done = subprocess.run(
                command,
                check=True,
                stdout=subprocess.PIPE,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )
            found[way] = json.loads(done.stdout)
            print(f"{config.name} {way}: {found[way]}", file=sys.stderr, flush=True)
    return found


def loaded(path: str, way: str, steps: int) -> dict[str, float | int]:
    """Loads a model in this process, runs steps, and returns their time and memory."""
    fields = settings(way)
    dtype, matmul_dtype = fields.pop("param_dtype"), fields.pop("matmul_dtype", "")
    fields.pop("unroll", None)  # a loop is the default, and for all ways
    jax.block_until_ready(jax.numpy.zeros(1))
    before = _highest_resident()
    start = time.perf_counter()
    config, frozen = load_frozen(path, dtype=dtype, **fields)
    loading = time.perf_counter() - start
    after_loading = _highest_resident()

    numbers = np.random.default_rng(0)
    source = numbers.integers(2, config.vocab_size, (BATCH, SOURCE), np.int32)
    target = numbers.integers(2, config.vocab_size, (BATCH, TARGET), np.int32)
    batch = {
        "encoder_input_tokens": source,
        "decoder_input_tokens": np.roll(target, 1, axis=1),
        "decoder_target_tokens": target,
        "decoder_loss_weights": np.ones((BATCH, TARGET), np.float32),
    }
    method, optimizer = SoftPrompt(length=PROMPT, embed_dim=config.embed_dim), adafactor(0.3)
    state = TrainState.create(method.init(jax.random.key(1), batch), optimizer)
    step = make_train_step(
        prompt_loss_fn(T5(config, Compute(matmul_dtype=matmul_dtype)), method, LossOptions()),
        optimizer,
    )
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        state, metrics = step(state, frozen, batch, jax.random.key(2))
        if not np.isfinite(float(metrics["loss"])):
            raise RuntimeError("The benchmark's loss isn't finite; its times mean nothing.")
        seconds.append(time.perf_counter() - start)
    return {
        "parameters": count_parameters(frozen),
        "weight_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(frozen)),
        "bytes_before_loading": before,
        "peak_bytes_loading": after_loading,
        "peak_bytes": _highest_resident(),
        "loading_seconds": loading,
        "first_step_seconds": seconds[0],
        "step_seconds": statistics.median(seconds[1:]),
    }


def _highest_resident() -> int:
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kilobytes) * 1024


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("accuracy", "plan", "process")
    parser.add_argument("--quick", action="store_true", help="tiny models, to try the benchmark")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument("--load", nargs=3, metavar=("FILE", "WAY", "STEPS"), help="in this process")
    options = parser.parse_args(arguments)
    if options.load:
        return_memory_after_compiling()
        path, way, steps = options.load
        print(json.dumps(loaded(path, way, int(steps))))
        return

    quick = options.quick
    work = {
        "accuracy": lambda: accuracy(2 if quick else 400),
        "plan": lambda: plan(
            ("t5_1_1_small",) if quick else ("t5_1_1_small", "t5_1_1_xl", "t5_1_1_xxl")
        ),
        "process": lambda: process(
            QUICK if quick else get_config("t5_1_1_small"), 1 if quick else 4
        ),
    }
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts:
        result[part] = work[part]()
        result["device"] = jax.devices()[0].device_kind
        result |= {"machine": platform.machine(), "jax": jax.__version__}
        result["date"] = time.strftime("%Y-%m-%d")
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
