"""`prompt-tuning launch`: writes a job for a scheduler, and optionally submits it.

    prompt-tuning launch slurm --nodes 4 --submit -- train --gin_file=... --gin.MODEL_DIR=...

The command after `--` is run unchanged on every machine of the job.
Templates are in `prompt_tuning/launch/templates`; docs/launching.md has an example of each.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.command_settings import COMMANDS
from prompt_tuning.cli.launch_check import check_command
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import atomic_write
from prompt_tuning.launch.jobs import ENGINES, render, submit
from prompt_tuning.sweeps.grid import combinations, grid_axes


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    at = argv.index("--") if "--" in argv else len(argv)
    own, command = list(argv[:at]), list(argv[at + 1 :])
    name, rest = (own[0], own[1:]) if own and not own[0].startswith("-") else (None, own)
    if name is None:
        _describe().parse([*rest, *([] if rest else ["--help"])])
        raise UserError(f"No engine: expected {', '.join(ENGINES)}. See prompt-tuning launch.")
    if name not in ENGINES:
        raise UserError(
            f"Unknown engine '{name}'; expected {', '.join(ENGINES)}.{did_you_mean(name, ENGINES)}"
        )
    engine = ENGINES[name]
    args = _parser(name).parse(rest)
    if not command:
        raise UserError(
            "There is no command to launch; write it after --, such as: prompt-tuning launch "
            "slurm --nodes 4 -- train --gin_file=..."
        )
    if command[0] not in COMMANDS:
        raise UserError(
            f"Unknown command '{command[0]}' after --; expected one of this program's, such as "
            f"train.{did_you_mean(command[0], COMMANDS)}"
        )
    options = vars(args)
    sweep, folder = dict(options.get("sweep", ())), options.get("folder", "runs")
    options["members"] = _member_flags(sweep, folder)
    template = Path(args.template).absolute() if args.template else engine.template
    text = render(template, command, options)
    if not args.no_check:
        check_command(command, workdir=args.workdir, sweep=sweep, folder=folder)
    if args.output is None and not args.submit:
        print(text, end="")
        return
    path = Path(args.output or f"{args.name}.{engine.file}")
    with atomic_write(path, fix="Give another --output.") as file:
        file.write(text.encode())
    if args.submit:
        submit(engine, path)
    else:
        print(f"Wrote {path}; submit it with: {' '.join([*engine.program, str(path)])}")


def _member_flags(sweep: Mapping[str, Sequence[str]], folder: str) -> list[str]:
    """Returns the flags of each combination of values, including a run folder named after it."""
    members: dict[str, str] = {}
    for settings in combinations(grid_axes(sweep)) if sweep else ():
        words = {macro: re.sub(r"[^-\w.]+", "_", value) for macro, value in settings.items()}
        name = ",".join(f"{macro}={word.strip('_')}" for macro, word in words.items())
        if name in members:
            raise UserError(f"Two members of the sweep would both be in {folder}/{name}.")
        flags = [f"--gin.{macro}={value}" for macro, value in settings.items()]
        members[name] = shlex.join([*flags, f"--gin.MODEL_DIR={folder.rstrip('/')}/{name}"])
    return list(members.values())


def _describe() -> Parser:
    width = max(map(len, ENGINES)) + 2
    engines = "\n".join(f"  {name:{width}}{engine.summary}" for name, engine in ENGINES.items())
    return Parser(
        "launch",
        "Writes a job for a scheduler, and submits it if asked to.\n\n"
        "usage: prompt-tuning launch ENGINE [--help] ... -- COMMAND ...\n\n"
        f"engines:\n{engines}",
        gin=False,
    )


def _parser(engine: str) -> Parser:
    parser = Parser(f"launch {engine}", ENGINES[engine].summary, gin=False)
    add = parser.add_argument
    add("--name", default="prompt-tuning", help="the job's name")
    add("--workdir", metavar="FOLDER", help="the folder to run the command in")
    add("--setup", metavar="SHELL", help="a shell command to run first")
    add("--template", metavar="FILE", help="an edited copy of the engine's template")
    add("--output", metavar="FILE", help="write the job to this file (default: print it)")
    add("--submit", action="store_true", help="submit the job with the engine's program")
    add(
        "--no_check",
        action="store_true",
        help="don't check the command first, for gin files that are only on the cluster",
    )
    if engine in ("slurm", "jobset", "skypilot"):
        add("--nodes", type=int, default=1, help="number of machines, with one process each")
    if engine in ("tpu", "xpk"):
        add("--zone")
        add("--project")
    if engine in ("jobset", "xpk"):
        add("--image", required=True, help="a container image with this package installed")
        add(
            "--max_restarts",
            type=int,
            default=10,
            help="maximum restarts of the whole job (default: 10)",
        )
    if engine == "slurm":
        add("--time", default="24:00:00", help="time limit of one allocation")
        add("--partition")
        add("--account")
        add("--gpus_per_node", type=int)
        add("--cpus_per_task", type=int)
        add(
            "--sweep",
            action="append",
            default=[],
            type=_pair("--sweep MACRO=A,B", _values),
            metavar="MACRO=A,B",
            help="a job array over values of a gin macro; repeat it for all combinations",
        )
        add("--folder", default="runs", help="the folder for a sweep's run folders")
        add("--at_once", type=int, help="maximum number of array jobs that run at a time")
    elif engine == "tpu":
        add("--tpu", required=True, metavar="NAME", help="the TPU's name")
    elif engine == "jobset":
        add("--gpus", type=int, help="GPUs per pod")
        add(
            "--tpu",
            type=_gke_tpu,
            metavar="KIND,TOPOLOGY,CHIPS",
            help="GKE's TPU type, topology and chips per pod: tpu-v5-lite-podslice,4x4,4",
        )
        add(
            "--claim",
            type=_pair("--claim NAME=PATH"),
            metavar="NAME=PATH",
            help="a volume claim and its mount path",
        )
        add("--queue", help="the Kueue queue")
        add("--namespace")
    elif engine == "xpk":
        add("--cluster", required=True)
        add("--tpu_type", required=True, help="the TPU type, such as v5litepod-16")
        add("--slices", type=int, default=1)
    elif engine == "skypilot":
        add("--accelerators", help="accelerators of each machine, such as H100:8")
        add("--infra", help="a cloud, or cloud/region/zone (default: the cheapest)")
        add("--on_demand", action="store_true", help="don't use spot machines")
        add(
            "--mount",
            action="append",
            default=[],
            type=_pair("--mount PATH=BUCKET"),
            metavar="PATH=BUCKET",
            help="a mount path and its bucket; run folders must be in one",
        )
        add(
            "--install",
            metavar="SHELL",
            help="run once on each machine, in a copy of this folder; default: install a checkout "
            "of this package with pip install '.[cuda]' or '.[tpu]'",
        )
    return parser


def _pair(form: str, value_of: Callable[[str], Any] = str) -> Callable[[str], tuple[str, Any]]:
    def parse(text: str) -> tuple[str, Any]:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(f"'{text}' is not of the form {form}.")
        return name, value_of(value)

    return parse


def _values(text: str) -> list[str]:
    """Splits at commas outside quotes and brackets."""
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


def _gke_tpu(text: str) -> dict[str, Any]:
    kind, topology, chips = (*text.split(","), "", "")[:3]
    if not (kind and topology and chips.isdigit()):
        raise UserError(
            f"--tpu is '{text}'; expected kind, topology and chips per pod, such as "
            "tpu-v5-lite-podslice,4x4,4."
        )
    return {"kind": kind, "topology": topology, "chips": int(chips)}
