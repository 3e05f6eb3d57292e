"""Trains each method that makes a prompt on TinyWorld, to see that it learns.

    python experiments/methods/prompts.py            all of them, in order: later ones need earlier
    python experiments/methods/prompts.py residual   this one

Each is one `prompt-tuning train` run on the frozen TinyWorld Small, its best step picked by the
validation split and scored once on the test split. Runs are in `--runs`, results in
`results/NAME.json`; those of SOURCES and TEACHERS are what mixed, multitask and SPoT prompts start
from, and the task that is to profit, RTE, is not among the sources.
"""

import argparse
import functools
import json
import shutil
import time
from pathlib import Path

from prompt_tuning.checkpoints.adapter_files import best_file, load_adapter
from prompt_tuning.cli import scoring, session, train
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.data import mixtures
from prompt_tuning.training.run import count_parameters

RESULTS = Path(__file__).parent / "results"
MODEL, TARGET = "tinyworld_small", "tinyworld_rte"
SOURCES = ("tinyworld_boolq", "tinyworld_cb", "tinyworld_wic")
MIXTURE = "tinyworld_sources"  # of SOURCES, which no shipped mixture is
STEPS, LENGTH = 200, 20


def experiments(runs: Path) -> dict[str, dict]:
    """Returns each run's task, gin files and settings, by name."""

    def prompt(task: str) -> str:
        return str(runs / f"soft_prompt_{task}" / "prompt_best.safetensors")

    plain = {"files": ("prompts/sampled_vocabulary", "runs/train")}
    placed = {"files": ("methods/soft_prompt_placement", "runs/train")}
    sources = [prompt(task) for task in SOURCES]
    found: dict[str, dict] = {
        f"soft_prompt_{task}": {"task": task, **plain} for task in (*SOURCES, TARGET)
    }
    for placement in ("after", "around", "decoder", "encoder_and_decoder"):
        found[f"soft_prompt_{placement}"] = {
            **placed,
            "settings": {"soft_prompt.placement": placement},
        }
    for name in ("p_tuning", "residual_prompt"):
        found[name] = {"files": ("runs/train", f"methods/{name}")}
    found["p_tuning_mlp"] = {**found["p_tuning"], "settings": {"p_tuning.encoder": "mlp"}}
    for name in ("mixed_prompt", "attention_mixed_prompt"):
        found[name] = {
            "files": (f"methods/{name}", "runs/train"),
            "settings": {"SOURCE_PROMPTS": sources},
        }
    multitask = {"task": MIXTURE, "files": ("methods/multitask_prompt", "runs/train")}
    found["multitask_prompt_no_teachers"] = multitask
    found["multitask_prompt"] = {**multitask, "settings": {"TEACHERS": sources}}
    found["multitask_prompt_adapted"] = {
        "files": ("methods/multitask_prompt_adapted", "runs/train"),
        "settings": {
            "MULTITASK_PROMPT": str(runs / "multitask_prompt" / "adapter_best.safetensors")
        },
    }
    found["spot_target"] = {**plain, "settings": {"TRAIN_STEPS": 10}}
    found["spot"] = {
        "files": ("prompts/spot", "runs/train"),
        "settings": {
            "SOURCE_PROMPTS": sources,
            "TARGET_PROMPT": str(runs / "spot_target" / "prompt_best.safetensors"),
        },
    }
    return found


def run(name: str, folder: Path, files: tuple, task: str = TARGET, settings: dict = {}) -> dict:  # noqa: B006
    """Trains, and returns what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = {
        "MIXTURE_OR_TASK_NAME": task,
        "MODEL_DIR": folder,
        "TRAIN_STEPS": STEPS,
        "PROMPT_LENGTH": LENGTH,
        "train.eval_every": 20,
        "train.checkpoint_every": STEPS,
        "train.tensorboard": False,
        "data.num_lengths": 1,  # less to compile
        **settings,
    }
    argv = [f"--gin_file=models/{MODEL}.gin", f"--gin_file=tasks/{TARGET}.gin"]
    argv += [f"--gin_file={file}.gin" for file in files]
    argv += [f"--gin.{key}={value}" for key, value in settings.items()]
    session.load_config(Parser("train", "").parse(argv))

    start = time.monotonic()
    job = session.prepare()
    test_splits = session.load_splits(job.base, job.data, "test")
    score = scoring.scorer(job.base, job.data, job.prediction, test_splits)
    untrained = score(functools.partial(job.method.apply, job.trained)).score
    trained_parameters = count_parameters(job.trained)
    best = train.train(job, train.open_folder(job, overwrite=False)).best
    file = best_file(folder)
    assert file is not None
    return {
        "method": name,
        "model": MODEL,
        "task": task if task != MIXTURE else list(SOURCES),
        "trained_parameters": trained_parameters,
        "steps": settings["TRAIN_STEPS"],
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
    args = parser.parse_args()
    mixtures.MIXTURES = {**mixtures.MIXTURES, MIXTURE: SOURCES}
    known = experiments(args.runs)
    for name in args.names or known:
        row = run(name, args.runs / name, **known[name])
        (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
