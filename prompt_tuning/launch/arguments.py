"""The arguments of each engine, which its template reads."""

import argparse
from collections.abc import Callable
from typing import Any

from prompt_tuning.errors import UserError


def add_arguments(parser: argparse.ArgumentParser, engine: str) -> None:
    """Adds an engine's arguments to the parser of `prompt-tuning launch ENGINE`."""
    add = parser.add_argument
    add("--name", default="prompt-tuning", help="the job's name")
    add("--workdir", metavar="FOLDER", help="the folder to run the command in")
    add("--setup", metavar="SHELL", help="a shell command to run first")
    add("--template", metavar="FILE", help="an edited copy of the engine's template")
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
