"""A batch script for SLURM: https://slurm.schedmd.com/sbatch.html.

One process a node, which finds the others through SLURM's own variables. Some minutes before the
time limit the processes get SIGTERM and save; the script then puts itself back in the queue, as
SLURM does with a job that was preempted or whose node failed. A sweep is a job array.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prompt_tuning.launch.job import SECONDS_TO_SAVE, STOPPED_AND_SAVED, Job, sweep_members


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What SLURM is asked for; None leaves it to the cluster's defaults.

    time: the limit of one stay on the machines, as SLURM writes it: "24:00:00".
    sweep: values by macro; with it, each combination is an element of an array, and `folder` is
        where their run folders go.
    at_once: how many elements of the array may run at the same time.
    """

    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    sweep: Mapping[str, Sequence[str]] | None = None
    folder: str = "runs"
    at_once: int | None = None


def slurm_script(job: Job, options: Slurm) -> str:
    """Returns the script that `sbatch` takes."""
    members = sweep_members(options.sweep, options.folder) if options.sweep else []
    directives = {
        "job-name": job.name,
        "nodes": job.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": options.gpus_per_node,
        "cpus-per-task": options.cpus_per_task,
        "time": options.time,
        "partition": options.partition,
        "account": options.account,
        "array": _array(len(members), options.at_once) if members else None,
        # Without "B:" it goes to the processes, not to this script, which then sees them end.
        "signal": f"TERM@{SECONDS_TO_SAVE}",
        "requeue": True,
        "open-mode": "append",
        "output": "%x-%A_%a.log" if members else "%x-%j.log",
    }
    lines = ["#!/bin/bash"]
    for name, value in directives.items():
        if value is not None:
            lines.append(f"#SBATCH --{name}" + ("" if value is True else f"={value}"))
    lines += ["", "set -euo pipefail", *job.preparation, ""]
    if members:
        lines += ['case "$SLURM_ARRAY_TASK_ID" in']
        for number, flags in enumerate(members):
            lines.append(f"  {number}) set -- {shlex.join(flags)} ;;")
        lines += ["esac", ""]
    rest = ' "$@"' if members else ""
    lines += [
        "status=0",
        f"srun --kill-on-bad-exit=1 {job.command_line}{rest} || status=$?",
        f"# {STOPPED_AND_SAVED}: asked to stop, and all is saved. The same script resumes.",
        f'if [ "$status" -eq {STOPPED_AND_SAVED} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _array(members: int, at_once: int | None) -> str:
    return f"0-{members - 1}" + (f"%{at_once}" if at_once else "")
