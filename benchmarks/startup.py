"""Measures the time from the command to the first step, and its parts.

    python benchmarks/startup.py [--quick] [--warm N]

`prompt-tuning train` is started as by a user, each time in a fresh process: T5 1.1 Small with
random weights in our own file format, a 100-token prompt, batch 8, inputs of 128 tokens, and eight
examples to evaluate the untrained prompt. The first start has an empty cache: it tokenizes the
data, for which it imports TensorFlow, and compiles. Later starts find token ids and programs in
the cache.

The parts are those that the command itself reports (`prompt_tuning/training/startup.py`), with the
process's total CPU seconds and the machine's load at its start, since wall time means little on a
busy machine. The target is 10 seconds with a warm cache on two idle cores. The numbers are also
written to benchmarks/results/startup.json.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import prompt_tuning
from prompt_tuning.checkpoints.arrays.safetensors_files import write_safetensors
from prompt_tuning.checkpoints.frozen.weights import CONFIG_KEY
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.parameters import parameter_shapes

RESULTS = Path(__file__).parent / "results" / "startup.json"
VOCABULARY = Path(prompt_tuning.__file__).parent / "assets" / "tinyworld" / "tinyworld.model"
TARGET_SECONDS = 10.0

FULL = get_config("t5_1_1_small")
QUICK = T5Config(
    name="quick",
    vocab_size=1408,  # at least the pieces of the shipped vocabulary
    embed_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
SOURCE, TRAINING_ROWS, VALIDATION_ROWS = 128, 64, 8


def random_arrays(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    numbers = np.random.default_rng(0)
    for name, shape in shapes.items():
        yield name, numbers.standard_normal(shape, np.float32) * np.float32(0.05)


def make_files(folder: Path, config: T5Config) -> None:
    """Writes the model and two jsonl files, every input longer than it is cut to."""
    shapes = parameter_shapes(config)
    dtypes = dict.fromkeys(shapes, np.dtype(np.float32))
    metadata = {CONFIG_KEY: json.dumps(config.to_json())}
    path = folder / "model.safetensors"
    write_safetensors(path, random_arrays(shapes), shapes, dtypes, metadata)
    for name, rows in (("train", TRAINING_ROWS), ("validation", VALIDATION_ROWS)):
        lines = [
            json.dumps({"text": f"{name} {row} " + "the cat is in the house " * 30, "label": label})
            for row in range(rows)
            for label in [("yes", "no")[row % 2]]
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def command(folder: Path, config: T5Config) -> list[str]:
    """Returns the command that a user would type."""
    settings = {
        "INITIAL_CHECKPOINT_PATH": folder / "model.safetensors",
        "VOCABULARY_PATH": VOCABULARY,
        # As many ids as the table has rows for.
        "vocabulary.extra_ids": config.vocab_size - len(Vocabulary(VOCABULARY, 0)),
        "frozen_model.architecture": None,
        "TRAIN_FILE": folder / "train.jsonl",
        "VALIDATION_FILE": folder / "validation.jsonl",
        "INPUT_TEMPLATE": "{text}",
        "TARGET_TEMPLATE": "{label}",
        "TASK_FEATURE_LENGTHS": {"inputs": SOURCE, "targets": 8},
        "PROMPT_LENGTH": 100,
        "BATCH_SIZE": 8,
        "TRAIN_STEPS": 2,
        "MODEL_DIR": folder / "run",
    }
    files = ("models/t5_1_1_small", "tasks/user_files", "prompts/class_label", "runs/train")
    return [
        *(sys.executable, "-m", "prompt_tuning.cli", "train", "--overwrite"),
        *(f"--gin_file={name}.gin" for name in files),
        *(f"--gin.{name}={value}" for name, value in settings.items()),
    ]


def start(folder: Path, config: T5Config) -> dict:
    """Starts training in a fresh process; returns the seconds of each part and the CPU time."""
    before, load = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0]
    environment = {**os.environ, "PROMPT_TUNING_CACHE": str(folder / "cache")}
    # Whoever keeps programs elsewhere would have a warm cache from the start.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        command(folder, config),
        env={**environment, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    return {
        "seconds": summary["startup"],
        "cpu_seconds_of_the_process": after.ru_utime
        + after.ru_stime
        - before.ru_utime
        - before.ru_stime,
        "programs": summary["compile"]["programs"],
        "programs_from_cache": summary["compile"]["from_cache"],
        "load_before": load,
    }


def measure(config: T5Config, warm: int) -> dict:
    """Starts once with an empty cache and then `warm` times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, config)
        cold = start(folder, config)
        starts = [start(folder, config) for _ in range(warm)]
    medians = {
        part: statistics.median(found["seconds"][part] for found in starts)
        for part in starts[0]["seconds"]
    }
    return {"cold": cold, "warm": starts, "warm_median_seconds": medians}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--warm", type=int, default=3, help="starts with a warm cache")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)

    config = QUICK if options.quick else FULL
    found = measure(config, options.warm)
    for name, seconds in (
        ("cold", found["cold"]["seconds"]),
        ("warm, median", found["warm_median_seconds"]),
    ):
        parts = ", ".join(f"{part} {value:.1f}" for part, value in seconds.items())
        print(f"{name:<13} {parts}")
    record = {
        "model": config.name,
        "target_seconds": TARGET_SECONDS,
        **found,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
