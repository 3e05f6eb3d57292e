"""`prompt-tuning plan`: estimates a training step's memory and time on other hardware.

Takes the gin files and flags of `train`. Neither weights nor data are read: the step is compiled
from shapes, by the accelerator's own compiler if it is installed, else for emulated CPU devices.
Either needs variables that are set before JAX starts, so the command runs itself again in a
subprocess.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, cast

import jax

from prompt_tuning.checkpoints.arrays.stored_arrays import dtype_of
from prompt_tuning.checkpoints.frozen.load import stored_frozen
from prompt_tuning.cli import configurables, gin_config, registry
from prompt_tuning.cli.parsers import parse
from prompt_tuning.files import new_file
from prompt_tuning.models import auto
from prompt_tuning.models.compute import AUTO, Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.parallel.mesh import DATA_AXIS, MODEL_AXIS
from prompt_tuning.planning import compilers
from prompt_tuning.planning.machines import Machine, find_machine
from prompt_tuning.planning.program import Work, needs_of, work_with_remat
from prompt_tuning.planning.report import make_plan
from prompt_tuning.recipes.say import say

DEFAULTS = "runs/plan.gin"

_INSIDE = "PROMPT_TUNING_PLAN_INSIDE"
"""Environment variable of the subprocess: the machine it was started for."""


def main(argv: Sequence[str]) -> int:
    """Runs the command; prints the plan."""
    args = parse("plan", argv)
    machine = find_machine(args.accelerator, args.devices)
    if os.environ.get(_INSIDE) == str(machine):
        print_plan(args, machine)
        return 0

    return run_apart(argv, machine).returncode


def run_apart(
    argv: Sequence[str], machine: Machine, *, capture_output: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `plan` in a process with the environment that the machine's compiler needs."""
    emulated = bool(compilers.missing(machine.accelerator))
    needed = compilers.environment(None if emulated else machine.accelerator, machine.devices)
    environment = {**os.environ, **needed, _INSIDE: str(machine)}
    command = [sys.executable, "-m", "prompt_tuning.cli", "plan", *argv]
    return subprocess.run(command, env=environment, text=True, capture_output=capture_output)


def print_plan(args: argparse.Namespace, machine: Machine) -> None:
    """Makes and prints the plan, in the process that `run_apart` started."""
    work, train_steps = configured(args)
    work = work_with_remat(work, machine.accelerator.memory)
    if compilers.missing(machine.accelerator):
        devices, compiler = jax.devices(), "for emulated CPU devices"
    else:
        devices = compilers.devices_of(machine.accelerator, machine.devices)
        compiler = "with its own compiler, which can take minutes"
    say(f"Compiling a step of {work.config.name} for {machine} {compiler}.")
    needs = needs_of(work, devices)
    plan = make_plan(
        work,
        needs,
        machine,
        train_steps,
        devices=devices,
        advise=not args.no_advice,
        progress=say,
    )
    print(plan.text(), end="")
    if args.json:
        with new_file(args.json) as file:
            file.write(json.dumps(plan.to_json(), indent=2) + "\n")


def configured(args: argparse.Namespace) -> tuple[Work, int]:
    """Returns the configured training step, and the number of steps."""
    # Initializers don't affect sizes, and some need the vocabulary.
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
    name, dtype = given.pop("name", None), given.pop("param_dtype", AUTO)
    may_be_auto = {
        field: given.pop(field) for field in ("compute_dtype", "remat", "unroll") if field in given
    }
    if given.get("matmul_dtype") == AUTO:
        given["matmul_dtype"] = "bfloat16"
    if dtype == AUTO:
        dtype = auto.auto_param_dtype(auto.ACCELERATOR)
    if architecture:
        config = get_config(architecture)
    else:
        stored = stored_frozen(checkpoint)
        config, dtype = stored.config, dtype_of(stored.parameters, dtype)
    config = dataclasses.replace(config, name=name or architecture or config.name)
    compute = auto.resolved(
        Compute(param_dtype=dtype or "float32", **given), config, auto.ACCELERATOR, **may_be_auto
    )
    # Only its sizes are used, so it needs no vocabulary.
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
    if budget is not None:  # with batches measured in tokens, plan for the longest inputs
        rows = budget.rows(data.lengths["inputs"])
        work = dataclasses.replace(work, batch_size=rows)
    return work, training.options.train_steps
