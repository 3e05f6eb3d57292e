"""Loads the configuration, frozen model, data and prompt of a command."""

import argparse
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from prompt_tuning.buckets import check_reachable
from prompt_tuning.checkpoints.adapters.adapter_files import best_file
from prompt_tuning.cli import configurables, gin_config, run_task
from prompt_tuning.cli.compilation_cache import compilation_cache
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path
from prompt_tuning.host_memory import return_memory_after_compiling
from prompt_tuning.parallel.mesh import check_batch
from prompt_tuning.recipes import frozen_base, job, task_file
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.job import Job, Load
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data

CONFIG = "config.gin"
MANY_PROMPTS = "runs/serve.gin"
"""Defaults of `serve` and `infer --prompts`, read before the user's gin files."""


def load_config(
    args: argparse.Namespace, *, run: str | None = None, defaults: Sequence[str] = ()
) -> None:
    """Reads the configuration from defaults, a run folder, gin files and flags, in this order.

    A run folder's task is restored as it was in training; see `run_task.py`.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    files = list(args.gin_file)
    recorded, missing = None, []
    if run is not None:
        check_reachable(config := as_path(run) / CONFIG)
        if not config.is_file():
            raise UserError(f"{run} is not a run folder: it has no {CONFIG}.")
        if re.search(rb"^objective\.", config.read_bytes(), re.MULTILINE):
            raise UserError(
                f"{run} is a pretraining run: it has a model, but neither a prompt nor a task to "
                "score. Its held-out loss is in its metrics.jsonl; to use the model, give "
                "--gin_file=tasks/... --gin_file=runs/evaluate.gin "
                f"--gin.INITIAL_CHECKPOINT_PATH={run} --gin.VOCABULARY_PATH=None and --prompt "
                "FILE or --no_prompt."
            )
        files.insert(0, str(config))
        recorded = task_file.read(run)
        missing = gin_config.missing_modules(config) if recorded else []
    if not files:
        run_folder = "a run folder or " if hasattr(args, "run") else ""
        raise UserError(
            f"No configuration: give {run_folder}--gin_file=..., for example "
            "--gin_file=quickstart.gin; --help ends with a whole command."
        )
    bindings = list(args.gin_bindings)
    if run is None and (getattr(args, "no_prompt", False) or getattr(args, "prompt", None)):
        bindings.insert(0, ("PROMPT_FILE", "None"))  # required by runs/evaluate.gin and others
    gin_config.load(
        [*defaults, *files],
        bindings,
        args.gin_search_paths,
        lenient=files[:1] if missing else (),
    )
    if run is not None and recorded:
        run_task.apply(run, recorded, missing)
    compilation_cache()
    return_memory_after_compiling()


def load_base(data: Data) -> Base:
    """Loads the frozen model, sharded over the devices, and its vocabulary.

    Raises:
      UserError: either can't be read, they don't match, or the data's batches can't be sharded
        over the devices.
    """
    layout = configurables.layout()
    check_batch(data.batch_size, layout.mesh)
    return frozen_base.load_base(
        layout,
        lambda sharding_of: configurables.frozen_model(sharding_of=sharding_of),
        configurables.vocabulary(),
    )


def prepare(
    base: Base | None = None,
    load: Load = load_splits,
    part: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext,
    side_by_side: int = 1,
) -> Job:
    """Loads the model and the data, and initializes the method.

    `base` and `load` let several jobs on one model share it and their data.
    `part(name)` is a context manager entered while loading the "weights" and the "data".
    `side_by_side` is the number of jobs whose steps one program makes.
    """
    training = configurables.train()
    data = configurables.data()
    prediction = configurables.predict(data)
    with part("weights"):
        base = base or load_base(data)
    return job.prepare(
        base, data, prediction, training, load=load, part=part, side_by_side=side_by_side
    )


def prompt_path(run: str | None, given: str | None) -> str:
    """Returns the prompt file: `given`, else the run's best, else PROMPT_FILE.

    Raises:
      UserError: none of them exists.
    """
    if given is not None:
        return given
    if run is not None:
        best = best_file(run)
        if best is None:
            raise UserError(
                f"{run} has no best prompt (prompt_best.npy or .safetensors): training hasn't "
                "reached its first evaluation. Run the same training command again to resume it."
            )
        return str(best)
    path = gin_config.macro("PROMPT_FILE")
    if path is None:
        raise UserError(
            "No prompt: give a run folder, --prompt FILE, or --gin.PROMPT_FILE=FILE "
            "(docs/adapters.md lists the forms); evaluate and infer take --no_prompt too."
        )
    return path


def chosen_prompt(args: argparse.Namespace) -> str | None:
    """Returns the prompt file, or None to run the model without a prompt.

    Raises:
      UserError: as `prompt_path`, or a prompt is given together with `--no_prompt`.
    """
    if args.no_prompt and args.prompt is not None:
        raise UserError("Give either --prompt or --no_prompt, not both.")
    given = args.prompt is not None or args.run is not None
    if args.no_prompt or (not given and ("PROMPT_FILE", "None") in args.gin_bindings):
        return None
    return prompt_path(args.run, args.prompt)
