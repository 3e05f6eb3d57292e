"""A command line for Cloud TPU VMs: the same command on every worker of a pod slice.

https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh. JAX finds the other workers
through the TPU's own metadata. A worker that is lost ends the others; each of them then starts the
command again, which waits for all and resumes from the last checkpoint. A command that fails a few
times in a row within minutes would fail forever: it is given up.
"""

import shlex
from dataclasses import dataclass

from prompt_tuning.launch.job import STOPPED_AND_SAVED, USER_ERROR, Job

_SECONDS_BETWEEN = 10
_QUICK_SECONDS, _QUICK_FAILURES = 300, 3


@dataclass(frozen=True, kw_only=True)
class TpuVm:
    """Which TPU; None leaves it to gcloud's own configuration.

    tpu: its name.
    """

    tpu: str
    zone: str | None = None
    project: str | None = None


def tpu_vm_script(job: Job, options: TpuVm) -> str:
    """Returns a script with the one gcloud command."""
    place = {"zone": options.zone, "project": options.project}
    command = [
        "gcloud",
        *("compute", "tpus", "tpu-vm", "ssh", options.tpu),
        *(f"--{name}={value}" for name, value in place.items() if value is not None),
        "--worker=all",
        f"--command={remote_command(job)}",
    ]
    return f"#!/bin/bash\n{shlex.join(command)}\n"


def remote_command(job: Job) -> str:
    """Returns what each worker runs: the command again and again, until it is done or given up."""
    return "\n".join(
        [
            "set -e",
            *job.preparation,
            "quick=0 began=$SECONDS",
            f"until {job.command_line}; do",
            "  status=$?",
            f"  case $status in {USER_ERROR}|130|{STOPPED_AND_SAVED}) exit $status ;; esac",
            f"  if [ $((SECONDS - began)) -lt {_QUICK_SECONDS} ]",
            "  then quick=$((quick + 1)); else quick=0; fi",
            f"  if [ $quick -ge {_QUICK_FAILURES} ]; then",
            f'    echo "Given up: failed {_QUICK_FAILURES} times in a row, each within '
            f'{_QUICK_SECONDS} seconds." >&2',
            "    exit $status",
            "  fi",
            '  echo "Restarting after status $status." >&2',
            f"  sleep {_SECONDS_BETWEEN}",
            "  began=$SECONDS",
            "done",
        ]
    )
