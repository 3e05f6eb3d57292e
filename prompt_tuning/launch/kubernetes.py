"""A JobSet for Kubernetes, as XPK makes them, and XPK's own command line.

https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2 and github.com/AI-Hypercomputer/xpk. A
pod that fails, is evicted or loses its node restarts all of the set; a mistake of the user's ends
it at once. On GKE's TPU nodes JAX finds the other pods by itself; elsewhere they are told.
"""

import shlex
from dataclasses import dataclass
from typing import Any

from prompt_tuning.launch.job import (
    COORDINATOR_PORT,
    SECONDS_TO_SAVE,
    USER_ERROR,
    Job,
    processes_flags,
)
from prompt_tuning.launch.yaml_text import yaml_text

_WORKERS = "workers"


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """What the pods are.

    image: the container's, with this package in it.
    gpus: of each pod; or
    tpu: kind, topology and chips of each pod, as GKE names them, such as
        ("tpu-v5-lite-podslice", "4x4", 4).
    claim: a PersistentVolumeClaim and where it is mounted; run folders have to be on it.
    queue: of Kueue.
    max_restarts: of the whole set.
    """

    image: str
    gpus: int | None = None
    tpu: tuple[str, str, int] | None = None
    claim: tuple[str, str] | None = None
    queue: str | None = None
    namespace: str | None = None
    max_restarts: int = 10


@dataclass(frozen=True, kw_only=True)
class Xpk:
    """What XPK is told: its cluster, the kind of slice, such as v5litepod-16, and the image."""

    cluster: str
    tpu_type: str
    image: str
    slices: int = 1
    zone: str | None = None
    project: str | None = None
    max_restarts: int = 10


def jobset(job: Job, options: Kubernetes) -> str:
    """Returns the manifest that `kubectl apply` takes."""
    template = {
        "spec": {
            "parallelism": job.nodes,
            "completions": job.nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"operator": "In", "values": [USER_ERROR]},
                    }
                ]
            },
            "template": {"spec": _pod(job, options)},
        }
    }
    labels = {"kueue.x-k8s.io/queue-name": options.queue} if options.queue else None
    return yaml_text(
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": job.name, "namespace": options.namespace, "labels": labels},
            "spec": {
                "failurePolicy": {
                    "maxRestarts": options.max_restarts,
                    "rules": [
                        {
                            "name": "usermistake",
                            "action": "FailJobSet",
                            "onJobFailureReasons": ["PodFailurePolicy"],
                        }
                    ],
                },
                "replicatedJobs": [{"name": _WORKERS, "replicas": 1, "template": template}],
            },
        }
    )


def _pod(job: Job, options: Kubernetes) -> dict[str, Any]:
    limits, selector = {}, None
    if options.gpus:
        limits["nvidia.com/gpu"] = options.gpus
    if options.tpu:
        kind, topology, chips = options.tpu
        limits["google.com/tpu"] = chips
        selector = {
            "cloud.google.com/gke-tpu-accelerator": kind,
            "cloud.google.com/gke-tpu-topology": topology,
        }
    container: dict[str, Any] = {
        "name": "prompt-tuning",
        "image": options.image,
        "command": ["bash", "-c", _script(job, options)],
        "resources": {"limits": limits} if limits else None,
    }
    volumes = None
    if options.claim:
        claim, path = options.claim
        container["volumeMounts"] = [{"name": "runs", "mountPath": path}]
        volumes = [{"name": "runs", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SECONDS_TO_SAVE,
        "nodeSelector": selector,
        "containers": [container],
        "volumes": volumes,
    }


def _script(job: Job, options: Kubernetes) -> str:
    flags = ""
    if job.nodes > 1 and not options.tpu:
        # The first pod's name, as JobSet gives it: set, job of it, copy, index; then the service.
        first = f"{job.name}-{_WORKERS}-0-0.{job.name}:{COORDINATOR_PORT}"
        flags = " " + processes_flags(first, str(job.nodes), "$JOB_COMPLETION_INDEX")
    # `exec`: SIGTERM goes to the container's first process.
    return "\n".join(["set -e", *job.preparation, f"exec {job.command_line}{flags}"]) + "\n"


def xpk_script(job: Job, options: Xpk) -> str:
    """Returns a script with the one xpk command."""
    flags = {
        "cluster": options.cluster,
        "workload": job.name,
        "tpu-type": options.tpu_type,
        "num-slices": options.slices,
        "docker-image": options.image,
        "zone": options.zone,
        "project": options.project,
        "max-restarts": options.max_restarts,
        "termination-grace-period-seconds": SECONDS_TO_SAVE,
        "command": _xpk_command(job),
    }
    command = ["xpk", "workload", "create", "--restart-on-user-code-failure"]
    command += [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return f"#!/bin/bash\n{shlex.join(command)}\n"


def _xpk_command(job: Job) -> str:
    """Returns what a pod runs, in one line, as XPK writes it into an indented block.

    XPK sends SIGTERM to the shell, which hands it on. A mistake of the user's ends without failure,
    or XPK would start it again and again.
    """
    script = "\n".join(
        [
            "set -e",
            *job.preparation,
            f"{job.command_line} &",
            "child=$!",
            """trap 'kill -TERM "$child"' TERM""",
            "status=0",
            'wait "$child" || status=$?',
            # The signal ends the waiting, not the command.
            'while kill -0 "$child" 2>/dev/null; do',
            '  status=0; wait "$child" || status=$?',
            "done",
            f'if [ "$status" -eq {USER_ERROR} ]; then exit 0; fi',
            'exit "$status"',
        ]
    )
    for character, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n")):
        script = script.replace(character, escape)
    return f"exec bash -c $'{script}'"
