"""`prompt-tuning launch`: writes a job for a scheduler that exists, and submits it if asked to.

    prompt-tuning launch slurm --nodes 4 --submit -- train --gin_file=... --gin.MODEL_DIR=...

What stands after `--` is a command of this program's, run as it is on every machine of the job.
The engines' files are made in `prompt_tuning.launch`; docs/launching.md has an example of each.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from prompt_tuning.cli.__main__ import COMMANDS, run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.launch_check import check_command
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import atomic_write
from prompt_tuning.launch.job import Job
from prompt_tuning.launch.kubernetes import Kubernetes, Xpk, jobset, xpk_script
from prompt_tuning.launch.skypilot import SkyPilot, skypilot_task
from prompt_tuning.launch.slurm import Slurm, slurm_script
from prompt_tuning.launch.submit import submit
from prompt_tuning.launch.tpu_vm import TpuVm, tpu_vm_script


class _Engine(NamedTuple):
    """How the command reaches one engine.

    file: how the job's file is called, after its name.
    program: what takes the file.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    write: Callable[[Job, argparse.Namespace], str]
    file: str
    program: tuple[str, ...]
    where: str


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    own, command = _divide(argv)
    name, rest = (own[0], own[1:]) if own and not own[0].startswith("-") else (None, own)
    if name is None:
        _describe().parse([*rest, *([] if rest else ["--help"])])
        raise UserError(f"No engine: expected {', '.join(_ENGINES)}. See prompt-tuning launch.")
    if name not in _ENGINES:
        raise UserError(
            f"Unknown engine '{name}'; expected {', '.join(_ENGINES)}."
            f"{did_you_mean(name, _ENGINES)}"
        )
    engine = _ENGINES[name]
    parser = Parser(f"launch {name}", engine.summary, gin=False)
    _add_common_arguments(parser)
    engine.add_arguments(parser)
    args = parser.parse(rest)
    if command and command[0] not in COMMANDS:
        raise UserError(
            f"Unknown command '{command[0]}' after --; expected one of this program's, such as "
            f"train.{did_you_mean(command[0], COMMANDS)}"
        )
    job = Job(
        name=args.name,
        command=command,
        nodes=getattr(args, "nodes", 1),
        workdir=args.workdir,
        setup=args.setup,
    )
    if not args.no_check:
        check_command(
            command,
            workdir=args.workdir,
            sweep=_sweep(args),
            folder=getattr(args, "folder", "runs"),
        )
    text = engine.write(job, args)
    if args.output is None and not args.submit:
        print(text, end="")
        return
    path = Path(args.output or f"{job.name}.{engine.file}")
    with atomic_write(path, fix="Give another --output.") as file:
        file.write(text.encode())
    if args.submit:
        submit(engine.program, path, where=engine.where)
    else:
        print(f"Wrote {path}; submit it with: {' '.join([*engine.program, str(path)])}")


def _divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments before the first `--`, and those after it."""
    arguments = list(argv)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _describe() -> Parser:
    width = max(map(len, _ENGINES)) + 2
    engines = "\n".join(f"  {name:{width}}{engine.summary}" for name, engine in _ENGINES.items())
    return Parser(
        "launch",
        "Writes a job for a scheduler, and submits it if asked to.\n\n"
        "usage: prompt-tuning launch ENGINE [--help] ... -- COMMAND ...\n\n"
        f"engines:\n{engines}",
        gin=False,
    )


def _add_common_arguments(parser: Parser) -> None:
    parser.add_argument("--name", default="prompt-tuning", help="the job's name")
    parser.add_argument("--workdir", metavar="FOLDER", help="the folder to run the command in")
    parser.add_argument(
        "--setup", metavar="SHELL", help="a line of shell to run before the command"
    )
    parser.add_argument("--output", metavar="FILE", help="write the job here; not given: print it")
    parser.add_argument("--submit", action="store_true", help="hand it to the engine's program")
    parser.add_argument(
        "--no_check",
        action="store_true",
        help="don't check the command first, such as where its gin files are only on the cluster",
    )


def _add_nodes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=1, help="machines, a process on each")


def _slurm_arguments(parser: argparse.ArgumentParser) -> None:
    _add_nodes(parser)
    parser.add_argument("--time", default="24:00:00", help="limit of one stay on the machines")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--gpus_per_node", type=int)
    parser.add_argument("--cpus_per_task", type=int)
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="MACRO=A,B",
        help="an array over these values of a gin macro; repeated: over every combination",
    )
    parser.add_argument("--folder", default="runs", help="where a sweep's run folders go")
    parser.add_argument("--at_once", type=int, help="elements of the array that may run together")


def _slurm(job: Job, args: argparse.Namespace) -> str:
    options = Slurm(
        time=args.time,
        partition=args.partition,
        account=args.account,
        gpus_per_node=args.gpus_per_node,
        cpus_per_task=args.cpus_per_task,
        sweep=_sweep(args) or None,
        folder=args.folder,
        at_once=args.at_once,
    )
    return slurm_script(job, options)


def _sweep(args: argparse.Namespace) -> dict[str, list[str]]:
    return dict(_pair(text, "--sweep MACRO=A,B", _values) for text in getattr(args, "sweep", []))


def _tpu_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tpu", required=True, metavar="NAME", help="the TPU's name")
    parser.add_argument("--zone")
    parser.add_argument("--project")


def _tpu(job: Job, args: argparse.Namespace) -> str:
    return tpu_vm_script(job, TpuVm(tpu=args.tpu, zone=args.zone, project=args.project))


def _jobset_arguments(parser: argparse.ArgumentParser) -> None:
    _add_nodes(parser)
    parser.add_argument("--image", required=True, help="a container's with this package in it")
    parser.add_argument("--gpus", type=int, help="of each pod")
    parser.add_argument(
        "--tpu",
        metavar="KIND,TOPOLOGY,CHIPS",
        help="as GKE names them, chips being those of a pod: tpu-v5-lite-podslice,4x4,4",
    )
    parser.add_argument(
        "--claim", metavar="NAME=PATH", help="a volume claim, and where to mount it"
    )
    parser.add_argument("--queue", help="of Kueue")
    parser.add_argument("--namespace")
    parser.add_argument("--max_restarts", type=int, default=10)


def _jobset(job: Job, args: argparse.Namespace) -> str:
    options = Kubernetes(
        image=args.image,
        gpus=args.gpus,
        tpu=_gke_tpu(args.tpu) if args.tpu else None,
        claim=_pair(args.claim, "--claim NAME=PATH") if args.claim else None,
        queue=args.queue,
        namespace=args.namespace,
        max_restarts=args.max_restarts,
    )
    return jobset(job, options)


def _xpk_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--tpu_type", required=True, help="such as v5litepod-16")
    parser.add_argument("--image", required=True, help="a container's with this package in it")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--zone")
    parser.add_argument("--project")
    parser.add_argument("--max_restarts", type=int, default=10)


def _xpk(job: Job, args: argparse.Namespace) -> str:
    options = Xpk(
        cluster=args.cluster,
        tpu_type=args.tpu_type,
        image=args.image,
        slices=args.slices,
        zone=args.zone,
        project=args.project,
        max_restarts=args.max_restarts,
    )
    return xpk_script(job, options)


def _skypilot_arguments(parser: argparse.ArgumentParser) -> None:
    _add_nodes(parser)
    parser.add_argument("--accelerators", help="of each machine, such as H100:8")
    parser.add_argument("--infra", help="a cloud, or cloud/region/zone; not given: the cheapest")
    parser.add_argument("--on_demand", action="store_true", help="no spot machines")
    parser.add_argument(
        "--mount",
        action="append",
        default=[],
        metavar="PATH=BUCKET",
        help="a bucket and where to mount it; run folders have to be in one",
    )
    parser.add_argument(
        "--install",
        metavar="SHELL",
        help="run once on each machine, in a copy of this folder; not given: installs a checkout "
        "of this package by pip install '.[cuda]' or '.[tpu]'",
    )


def _skypilot(job: Job, args: argparse.Namespace) -> str:
    options = SkyPilot(
        accelerators=args.accelerators,
        infra=args.infra,
        spot=not args.on_demand,
        mounts=dict(_pair(text, "--mount PATH=BUCKET") for text in args.mount),
        install=args.install,
    )
    return skypilot_task(job, options)


def _pair(text: str, form: str, value_of: Callable[[str], object] = str) -> tuple:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"'{text}' is not of the form {form}.")
    return name, value_of(value)


def _values(text: str) -> list[str]:
    """Divides at the commas that stand outside of quotes and brackets."""
    values, depth, quote = [""], 0, None
    for character in text:
        if quote:
            quote = None if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and not depth:
            values.append("")
            continue
        values[-1] += character
    return values


def _gke_tpu(text: str) -> tuple[str, str, int]:
    kind, _, rest = text.partition(",")
    topology, _, chips = rest.partition(",")
    if not (kind and topology and chips.isdigit()):
        raise UserError(
            f"--tpu is '{text}'; expected kind, topology and chips of a pod, such as "
            "tpu-v5-lite-podslice,4x4,4."
        )
    return kind, topology, int(chips)


_ENGINES = {
    "slurm": _Engine(
        "a batch script for sbatch; an array for a sweep",
        _slurm_arguments,
        _slurm,
        "sbatch.sh",
        ("sbatch",),
        "https://slurm.schedmd.com",
    ),
    "tpu": _Engine(
        "a gcloud command for every worker of a Cloud TPU VM or pod slice",
        _tpu_arguments,
        _tpu,
        "gcloud.sh",
        ("bash",),
        "https://cloud.google.com/sdk",
    ),
    "jobset": _Engine(
        "a JobSet for Kubernetes",
        _jobset_arguments,
        _jobset,
        "jobset.yaml",
        ("kubectl", "apply", "-f"),
        "https://kubernetes.io/docs/tasks/tools",
    ),
    "xpk": _Engine(
        "an xpk command for a GKE cluster of TPUs",
        _xpk_arguments,
        _xpk,
        "xpk.sh",
        ("bash",),
        "https://github.com/AI-Hypercomputer/xpk",
    ),
    "skypilot": _Engine(
        "a managed job for SkyPilot, in any cloud",
        _skypilot_arguments,
        _skypilot,
        "sky.yaml",
        ("sky", "jobs", "launch", "--yes"),
        "https://docs.skypilot.co",
    ),
}


if __name__ == "__main__":
    run(main)
