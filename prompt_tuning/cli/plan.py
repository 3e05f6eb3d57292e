"""`prompt-tuning plan`: the memory and time of a training step on machines that you don't have.

Takes the gin files and flags of `train`. Neither a checkpoint nor data are read: the step is
compiled on shapes, for emulated devices. Their number has to be known before JAX starts, so the
command runs itself once more in a process of its own.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, cast

from prompt_tuning.checkpoints.arrays.stored_arrays import dtype_of
from prompt_tuning.checkpoints.frozen.load import stored_frozen
from prompt_tuning.cli import configurables, gin_config, registry
from prompt_tuning.cli.parsers import parse
from prompt_tuning.files import new_file
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.parallel.mesh import DATA_AXIS, MODEL_AXIS
from prompt_tuning.planning.machines import Machine, find_machine
from prompt_tuning.planning.program import Work, needs_of
from prompt_tuning.planning.report import make_plan
from prompt_tuning.recipes.say import say

DEFAULTS = "runs/plan.gin"

_INSIDE = "PROMPT_TUNING_PLAN_DEVICES"
"""Set in the process that emulates devices."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; prints the plan."""
    args = parse("plan", argv)
    machine = find_machine(args.accelerator, args.devices)
    if os.environ.get(_INSIDE) == str(machine.devices):
        print_plan(args, machine)
        return 0

    return run_emulated(argv, machine.devices).returncode


def run_emulated(
    argv: Sequence[str], devices: int, *, capture_output: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `plan` in a process that emulates so many devices, which XLA reads as it starts."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # A program from a cache doesn't report the memory that it needs.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        _INSIDE: str(devices),
    }
    command = [sys.executable, "-m", "prompt_tuning.cli", "plan", *argv]
    return subprocess.run(command, env=environment, text=True, capture_output=capture_output)


def print_plan(args: argparse.Namespace, machine: Machine) -> None:
    """Makes the plan in a process that emulates the machine's devices, and prints it."""
    work, train_steps = configured(args, machine.devices)
    say(f"Compiling a step of {work.config.name} for {machine}.")
    needs = needs_of(work)
    plan = make_plan(work, needs, machine, train_steps, advise=not args.no_advice, progress=say)
    print(plan.text())
    if args.json:
        with new_file(args.json) as file:
            file.write(json.dumps(plan.to_json(), indent=2) + "\n")


def configured(args: argparse.Namespace, devices: int) -> tuple[Work, int]:
    """Returns the step that the configuration describes, and how many of it training makes."""
    # Where a prompt starts doesn't matter to its size, and would need the vocabulary.
    starts = [
        (f"{name}.initializer", "@random_uniform")
        for name in registry.configurables_with("initializer")
    ]
    gin_config.load(
        [DEFAULTS, *args.gin_file], [*args.gin_bindings, *starts], args.gin_search_paths
    )
    data = configurables.data()
    training = configurables.train()
    layout = configurables.layout()

    given = gin_config.parameters("frozen_model")
    architecture, checkpoint = given.pop("architecture", None), given.pop("checkpoint")
    name, dtype = given.pop("name", None), given.pop("param_dtype", None)
    if given.get("matmul_dtype") == "auto":  # what it means on every accelerator of the table
        given["matmul_dtype"] = "bfloat16"
    if architecture:
        config = get_config(architecture)
    else:
        stored = stored_frozen(checkpoint)
        config, dtype = stored.config, dtype_of(stored.parameters, dtype)
    config = dataclasses.replace(config, name=name or architecture or config.name)
    compute = Compute(param_dtype=dtype or "float32", **given)
    # It is asked for its sizes alone, so it may go without a vocabulary.
    base = configurables.Base(
        config=config,
        compute=compute,
        params=abstract_params(config, compute),
        vocabulary=cast(Any, None),
        layout=layout,
    )
    mesh = layout.mesh.shape
    accumulation_steps = training.options.accumulation_steps
    work = Work(
        config=config,
        compute=compute,
        method=training.make_method(base),
        optimizer=training.optimizer,
        loss=training.loss,
        batch_size=data.batch_size,
        input_length=data.lengths["inputs"],
        target_length=data.target_length,
        accumulation_steps=accumulation_steps,
        tasks=len(data.tasks),
        model_parallel=mesh[MODEL_AXIS],
        data_parallel=mesh[DATA_AXIS],
        fsdp=layout.fsdp,
    )
    budget = data.token_budget(mesh[DATA_AXIS] * accumulation_steps, lambda: work.prompt_length)
    if budget is not None:  # of batches that are measured in tokens, that of the longest inputs
        rows = budget.rows(data.lengths["inputs"])
        work = dataclasses.replace(work, batch_size=rows)
    return work, training.options.train_steps
