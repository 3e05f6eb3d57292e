"""A task for SkyPilot's managed jobs: https://docs.skypilot.co/en/latest/reference/yaml-spec.html.

SkyPilot finds machines in any cloud, and others where a spot machine is taken away. Run folders
have to be in a bucket that it mounts, or they are lost with the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prompt_tuning.launch.job import COORDINATOR_PORT, STOPPED_AND_SAVED, Job, processes_flags
from prompt_tuning.launch.yaml_text import yaml_text

_PROCESS_LOST = 3


@dataclass(frozen=True, kw_only=True)
class SkyPilot:
    """What SkyPilot is asked for.

    accelerators: of each machine, such as "H100:8" or "tpu-v5litepod-16".
    infra: a cloud, region and zone, such as "gcp/us-central1"; None: the cheapest.
    spot: whether machines may be taken away, for less money.
    mounts: a bucket's address by the folder where it is mounted.
    install: a line of shell run once on each machine, in a copy of the folder that the job is
        launched from; None installs this package from that folder, with JAX for `accelerators`.
    """

    accelerators: str | None = None
    infra: str | None = None
    spot: bool = True
    mounts: Mapping[str, str] | None = None
    install: str | None = None

    @property
    def install_line(self) -> str:
        """The line of shell that installs the package."""
        if self.install is not None:
            return self.install
        kind = self.accelerators or ""
        extra = "[tpu]" if kind.startswith("tpu") else "[cuda]" if kind else ""
        return f"pip install '.{extra}'"


def skypilot_task(job: Job, options: SkyPilot) -> str:
    """Returns the task that `sky jobs launch` takes."""
    flags = ""
    is_tpu = (options.accelerators or "").startswith("tpu")
    if job.nodes > 1 and not is_tpu:
        first = f"${{SKYPILOT_NODE_IPS%%$'\\n'*}}:{COORDINATOR_PORT}"
        flags = " " + processes_flags(first, "$SKYPILOT_NUM_NODES", "$SKYPILOT_NODE_RANK")
    mounts = {
        path: {"source": bucket, "mode": "MOUNT"} for path, bucket in (options.mounts or {}).items()
    }
    return yaml_text(
        {
            "name": job.name,
            "num_nodes": job.nodes,
            "resources": {
                "infra": options.infra,
                "accelerators": options.accelerators,
                "use_spot": options.spot,
                # A machine that is taken away is replaced anyhow; these are ends of the command.
                "job_recovery": {
                    "max_restarts_on_errors": 3,
                    "recover_on_exit_codes": [_PROCESS_LOST, STOPPED_AND_SAVED],
                },
            },
            "file_mounts": mounts or None,
            "workdir": ".",
            "setup": options.install_line + "\n",
            "run": "\n".join([*job.preparation, f"exec {job.command_line}{flags}"]) + "\n",
        }
    )
