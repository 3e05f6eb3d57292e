"""Trains a prompt under T5X and with this package, on the same batches, and compares them.

    python experiments/t5x/compare.py FOLDER

T5X must be importable; see docs/t5x.md. FOLDER gets both runs, and losses.csv and scores.csv.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from t5x import utils
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import prompt_tuning as pt
from prompt_tuning.contrib.t5x import tasks
from prompt_tuning.contrib.t5x.checkpoint import write_checkpoint
from prompt_tuning.contrib.t5x.model import PromptTunedModel

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "prompt_tuning" / "contrib" / "t5x" / "configs"
MODEL, VOCABULARY, TASK = "tinyworld_tiny", "tinyworld", "tinyworld_wsc"
LENGTHS = {"inputs": 64, "targets": 4}
PROMPT_LENGTH, STEPS, BATCH_SIZE, SEED = 20, 10, 32, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    base = pt.load(MODEL, VOCABULARY)
    frozen = write_checkpoint(folder / "frozen", base)

    of_t5x = folder / "t5x"
    t5x("train", [HERE / "ten_steps.gin"], INITIAL_CHECKPOINT_PATH=frozen, MODEL_DIR=of_t5x)
    run = pt.train_on_batches(
        base,
        # T5X saves a checkpoint before its first step.
        pt.soft_prompt(
            length=PROMPT_LENGTH, initializer=pt.from_file(str(of_t5x / "checkpoint_0"))
        ),
        t5x_batches(),
        folder=folder / "ours",
        steps=STEPS,
        checkpoint_every=STEPS,
        log_every=1,
        seed=SEED,
        overwrite=True,
    )
    losses = zip(logged_by_t5x(of_t5x, "loss"), logged_by_us(folder / "ours"), strict=True)
    rows = [(step, of_t5x, ours, of_t5x - ours) for step, (of_t5x, ours) in enumerate(losses, 1)]
    write(folder / "losses.csv", ["step", "t5x", "ours", "difference"], rows)

    trained = of_t5x / f"checkpoint_{STEPS}"
    ours = write_checkpoint(folder / "ours_for_t5x", base, run.adapter, step=STEPS)
    rows = [
        ("t5x", scored_by_t5x(trained, folder / "t5x_scored"), scored_by_us(base, trained)),
        ("ours", scored_by_t5x(ours, folder / "ours_scored"), scored_by_us(base, run)),
    ]
    write(folder / "scores.csv", ["trained by", "scored by t5x", "scored by us"], rows)


def t5x(script: str, gin_files: Sequence[Any], **macros: Any) -> None:
    """Runs one of T5X's scripts, as its users do."""
    command = [sys.executable, "-m", f"t5x.{script}", f"--gin_search_paths={CONFIGS}"]
    command += [f"--gin_file={file}" for file in gin_files]
    values = {name: str(v) if isinstance(v, Path) else v for name, v in macros.items()}
    command += [f"--gin.{name}={value!r}" for name, value in values.items()]
    subprocess.run(command, check=True)


def t5x_batches() -> list[dict[str, Any]]:
    """Returns the batches of T5X's run."""
    name = tasks.registered(TASK, VOCABULARY)
    config = utils.DatasetConfig(
        name, LENGTHS, "train", BATCH_SIZE, shuffle=True, seed=SEED, pack=False
    )
    data = utils.get_dataset(config, 0, 1, PromptTunedModel.FEATURE_CONVERTER_CLS)
    return list(data.take(STEPS).as_numpy_iterator())


def logged_by_t5x(folder: Path, tag: str) -> list[float]:
    """Returns a value that a run of T5X wrote for TensorBoard at each step."""
    events = EventAccumulator(str(folder / "train"), size_guidance={"tensors": 0}).Reload()
    return [float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


def logged_by_us(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [found["loss"] for found in map(json.loads, lines) if "loss" in found]


def scored_by_t5x(checkpoint: Path, folder: Path) -> float:
    """Returns the accuracy on the validation split that T5X's evaluation script finds."""
    t5x(
        "eval",
        ["eval.gin", "models/tinyworld_tiny.gin"],
        TASK_NAME=TASK,
        TASK_FEATURE_LENGTHS=LENGTHS,
        PROMPT_LENGTH=PROMPT_LENGTH,
        CHECKPOINT_PATH=checkpoint,
        EVAL_OUTPUT_DIR=folder,
    )
    (line,) = (folder / "inference_eval" / f"{TASK}-metrics.jsonl").read_text().splitlines()
    return json.loads(line)["accuracy"]


def scored_by_us(base: pt.Base, trained: Any) -> float:
    return pt.evaluate(base, trained, TASK, lengths=LENGTHS).metrics["accuracy"]


def write(file: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
