"""Each engine's file has the engine's own form, and brings the command to the machine as it was."""

import shlex
import subprocess
import sys

import pytest
import yaml

from prompt_tuning.cli.__main__ import main
from prompt_tuning.errors import UserError

COMMAND = [
    "train",
    "--gin_file=runs/train.gin",
    "--gin.CLASS_LABELS=['it is', \"isn't\", '']",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 512, 'targets': 8}",
    '--gin.INPUT_TEMPLATE=a: {a}\n$HOME `ls` \\ | > # * ? ! & ; "',
    "--gin.NOTE=ünï 漢",
]
WHERE = ["--workdir=/my runs", "--setup=true # ready"]

# https://slurm.schedmd.com/sbatch.html
SBATCH = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "partition",
    "account", "array", "signal", "requeue", "open-mode", "output",
}  # fmt: skip

# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2 and
# https://kubernetes.io/docs/reference/kubernetes-api (Job v1, PodSpec): fields by their object, and
# those that it must have.
JOBSET = {
    "": ({"apiVersion", "kind", "metadata", "spec"}, {"apiVersion", "kind", "metadata"}),
    "metadata": ({"name", "namespace", "labels", "annotations"}, {"name"}),
    "spec": (
        {"replicatedJobs", "network", "successPolicy", "failurePolicy", "startupPolicy", "suspend"}
        | {"coordinator", "managedBy", "ttlSecondsAfterFinished"},
        set(),
    ),
    "spec.failurePolicy": ({"maxRestarts", "rules"}, set()),
    "spec.failurePolicy.rules": (
        {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"},
        {"action"},
    ),
    "spec.replicatedJobs": ({"name", "template", "replicas", "dependsOn"}, {"name", "template"}),
    "spec.replicatedJobs.template": ({"metadata", "spec"}, set()),
    "spec.replicatedJobs.template.spec": (
        {"parallelism", "completions", "completionMode", "backoffLimit", "podFailurePolicy"}
        | {"template", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "suspend", "selector"},
        {"template"},
    ),
    "spec.replicatedJobs.template.spec.podFailurePolicy": ({"rules"}, {"rules"}),
    "spec.replicatedJobs.template.spec.podFailurePolicy.rules": (
        {"action", "onExitCodes", "onPodConditions"},
        {"action"},
    ),
    "spec.replicatedJobs.template.spec.podFailurePolicy.rules.onExitCodes": (
        {"containerName", "operator", "values"},
        {"operator", "values"},
    ),
    "spec.replicatedJobs.template.spec.template": ({"metadata", "spec"}, set()),
    "spec.replicatedJobs.template.spec.template.spec": (
        {"restartPolicy", "terminationGracePeriodSeconds", "nodeSelector", "containers", "volumes"}
        | {"tolerations", "serviceAccountName", "hostNetwork", "dnsPolicy", "affinity"},
        {"containers"},
    ),
    "spec.replicatedJobs.template.spec.template.spec.containers": (
        {"name", "image", "command", "args", "env", "resources", "volumeMounts", "ports"},
        {"name"},
    ),
    "spec.replicatedJobs.template.spec.template.spec.containers.resources": (
        {"limits", "requests", "claims"},
        set(),
    ),
    "spec.replicatedJobs.template.spec.template.spec.containers.volumeMounts": (
        {"name", "mountPath", "subPath", "readOnly"},
        {"name", "mountPath"},
    ),
    "spec.replicatedJobs.template.spec.template.spec.volumes": (
        {"name", "persistentVolumeClaim", "emptyDir", "configMap", "secret"},
        {"name"},
    ),
    "spec.replicatedJobs.template.spec.template.spec.volumes.persistentVolumeClaim": (
        {"claimName", "readOnly"},
        {"claimName"},
    ),
}
# Objects whose keys are the user's own.
FREE = ("labels", "nodeSelector", "limits")

# https://docs.skypilot.co/en/latest/reference/yaml-spec.html and sky/utils/schemas.py.
SKYPILOT = {
    "": (
        {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "volumes", "file_mounts"}
        | {"setup", "run", "config", "service"},
        set(),
    ),
    "resources": (
        {"infra", "accelerators", "accelerator_args", "cpus", "memory", "instance_type"}
        | {"use_spot", "disk_size", "disk_tier", "image_id", "labels", "any_of", "job_recovery"},
        set(),
    ),
    "resources.job_recovery": (
        {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"},
        set(),
    ),
}

# github.com/AI-Hypercomputer/xpk, src/xpk/parser/workload.py and common.py.
XPK = {
    "cluster", "workload", "tpu-type", "num-slices", "docker-image", "zone", "project", "command",
    "max-restarts", "termination-grace-period-seconds", "restart-on-user-code-failure",
}  # fmt: skip


def check(value, schema, place=""):
    """Walks a manifest: each field is known where it stands, and what must be there is."""
    if isinstance(value, list):
        for item in value:
            check(item, schema, place)
    elif isinstance(value, dict) and place.rpartition(".")[2] not in FREE:
        known, needed = schema[place]
        assert needed <= value.keys() <= known, place
        for key, item in value.items():
            check(item, schema, f"{place}.{key}".lstrip("."))


@pytest.fixture
def job(capsys):
    """Returns what `launch` prints for an engine and its flags."""

    def write(engine, *flags):
        main(["launch", engine, "--name=rte-1", "--no_check", *flags, "--", *COMMAND])
        return capsys.readouterr().out

    return write


def directives(script):
    found = {}
    for line in script.splitlines()[1:]:
        if not line.startswith("#SBATCH --"):
            break  # as sbatch does
        name, _, value = line.removeprefix("#SBATCH --").partition("=")
        found[name] = value
    assert script.count("#SBATCH") == len(found)
    return found


def test_slurm_directives_and_syntax(job):
    flags = ["--time=1:00:00", "--partition=gpu", "--account=lab", "--gpus_per_node=8"]
    script = job("slurm", "--nodes=4", *WHERE, *flags)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    found = directives(script)
    assert found.keys() <= SBATCH
    assert found == {
        "job-name": "rte-1",
        "nodes": "4",
        "ntasks-per-node": "1",
        "gpus-per-node": "8",
        "time": "1:00:00",
        "partition": "gpu",
        "account": "lab",
        "signal": "TERM@120",
        "requeue": "",
        "open-mode": "append",
        "output": "%x-%j.log",
    }
    assert script.index("cd '/my runs'") < script.index("true # ready") < script.index("srun")


def test_slurm_runs_the_command_and_queues_again_what_was_stopped(job, machine):
    script = job("slurm")
    for status in (0, 1, 2, 143):
        assert machine.run(script, status, SLURM_JOB_ID="71") == status
        machine.folder.joinpath("ran").unlink() if status != 143 else None
    assert machine.ran == [COMMAND]
    assert (machine.folder / "scontrol.log").read_text() == "requeue 71\n", "after 143 alone"


def test_a_sweep_is_an_array(job, machine):
    sweep = ["--sweep=SEED=0,1", "--sweep=LABELS=['a b', 'c'],['d'],None"]
    script = job("slurm", *sweep, "--folder=runs/rte", "--at_once=2")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert directives(script)["array"] == "0-5%2"
    assert directives(script)["output"] == "%x-%A_%a.log"
    for number in range(6):
        machine.run(script, SLURM_ARRAY_TASK_ID=str(number))
    assert [arguments[: len(COMMAND)] for arguments in machine.ran] == [COMMAND] * 6
    members = [arguments[len(COMMAND) :] for arguments in machine.ran]
    assert len(set(map(tuple, members))) == 6
    assert members[3] == [
        "--gin.SEED=1",
        "--gin.LABELS=['a b', 'c']",
        "--gin.MODEL_DIR=runs/rte/SEED=1,LABELS=a_b_c",
    ]


def test_members_of_a_sweep_have_folders_of_their_own(job):
    with pytest.raises(UserError, match="would have the same folder, runs/X=a_b"):
        job("slurm", "--sweep=X=a b,a_b")


def test_the_tpu_command(job):
    script = job("tpu", *WHERE, "--tpu=pod", "--zone=us-east1-d", "--project=lab")
    *flags, last = shlex.split(script, comments=True)
    assert flags == [
        *("gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"),
        *("--zone=us-east1-d", "--project=lab", "--worker=all"),
    ]
    assert last.startswith("--command=set -e\ncd '/my runs'\ntrue # ready\nquick=0")


@pytest.mark.parametrize(
    ("statuses", "end", "times"),
    [
        ((0,), 0, 1),
        ((2,), 2, 1),
        ((143,), 143, 1),
        ((1, 137, 0), 0, 3),
        ((1, 1, 1, 0), 1, 3),  # a quick failure each time
    ],
)
def test_a_worker_starts_again_until_done_or_stopped(job, machine, statuses, end, times):
    script = job("tpu", "--tpu=pod")
    assert machine.run(script, *statuses) == end
    assert machine.ran == [COMMAND] * times


def test_the_jobset(job, machine):
    flags = ["--nodes=4", "--image=me/tuning:1", "--gpus=8", "--claim=disk=/runs", "--queue=q"]
    manifest = yaml.safe_load(job("jobset", *flags, *WHERE, "--namespace=lab"))
    check(manifest, JOBSET)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    template = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert template["parallelism"] == template["completions"] == 4
    pod = template["template"]["spec"]
    # What Kubernetes asks for where there is a podFailurePolicy.
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["volumes"][0]["name"] == container["volumeMounts"][0]["name"]
    assert "cd '/my runs'" in container["command"][2]

    manifest = yaml.safe_load(job("jobset", *flags))
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    machine.run(shlex.join(pod["containers"][0]["command"]), JOB_COMPLETION_INDEX="3")
    assert machine.ran == [
        [
            *COMMAND,
            "--gin.COORDINATOR_ADDRESS=rte-1-workers-0-0.rte-1:8476",
            "--gin.NUM_PROCESSES=4",
            "--gin.PROCESS_ID=3",
        ]
    ]


def test_a_jobset_on_tpus_leaves_it_to_jax_to_find_the_others(job, machine):
    flags = ["--image=i", "--nodes=4", "--tpu=tpu-v5-lite-podslice,4x4,4"]
    manifest = yaml.safe_load(job("jobset", *flags))
    check(manifest, JOBSET)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    machine.run(shlex.join(pod["containers"][0]["command"]))
    assert machine.ran == [COMMAND]


@pytest.mark.parametrize(("status", "end"), [(0, 0), (1, 1), (2, 0), (143, 143)])
def test_the_xpk_command(job, machine, status, end):
    script = job(
        "xpk", "--cluster=c", "--tpu_type=v5litepod-16", "--image=me/i", "--slices=2", "--zone=z"
    )
    program = shlex.split(script.replace("\\\n", ""), comments=True)
    assert program[:3] == ["xpk", "workload", "create"]
    assert {flag[2:].partition("=")[0] for flag in program[3:]} <= XPK
    assert {"--tpu-type=v5litepod-16", "--num-slices=2"} < set(program)
    assert "\n" not in program[-1], "XPK writes it into an indented block"
    # A user's mistake isn't started again.
    assert machine.run(script, status) == end
    assert machine.ran == [COMMAND]


def test_xpk_hands_sigterm_on(job, machine):
    """The real command would save; here it says that it was asked to."""
    (machine.folder / "prompt-tuning").write_text(
        f"#!{sys.executable}\nimport signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        # Bash misses a signal that comes just as it begins to wait.
        "time.sleep(0.5)\nprint('ready', flush=True)\ntime.sleep(30)\n"
    )
    script = job("xpk", "--cluster=c", "--tpu_type=v5litepod-16", "--image=i")
    with subprocess.Popen(
        ["bash", "-c", "exec " + script.removeprefix("#!/bin/bash\n")],
        env=machine.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=30) == 143


def test_the_skypilot_task(job, machine):
    flags = ["--accelerators=H100:8", "--infra=gcp/us-central1", "--mount=/runs=gs://bucket"]
    task = yaml.safe_load(job("skypilot", "--nodes=2", *flags))
    mounts = task.pop("file_mounts")
    check(task, SKYPILOT)
    assert (task["workdir"], task["setup"]) == (".", "pip install '.[cuda]'\n")
    assert mounts == {"/runs": {"source": "gs://bucket", "mode": "MOUNT"}}
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [3, 143]
    machine.run(
        task["run"],
        SKYPILOT_NODE_IPS="10.0.0.7\n10.0.0.8",
        SKYPILOT_NUM_NODES="2",
        SKYPILOT_NODE_RANK="1",
    )
    assert machine.ran == [
        [
            *COMMAND,
            "--gin.COORDINATOR_ADDRESS=10.0.0.7:8476",
            "--gin.NUM_PROCESSES=2",
            "--gin.PROCESS_ID=1",
        ]
    ]


@pytest.mark.parametrize(
    "setup", ["yes", "#", ": ~", " a: b ", "- c\n\n  d", "é\u2028\u0007", "'x' \"y\"", "\ta"]
)
def test_whatever_is_in_a_script_is_read_back_from_yaml(job, setup):
    manifest = yaml.safe_load(job("jobset", "--image=yes", f"--setup={setup}"))
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "yes"
    script = pod["containers"][0]["command"][2]
    assert script.startswith(f"set -e\n{setup}\nexec prompt-tuning ")
    assert yaml.safe_load(job("skypilot", f"--install={setup}"))["setup"] == f"{setup}\n"


def test_a_template_of_ones_own(job, tmp_path):
    template = tmp_path / "own.sh"
    template.write_text("#SBATCH --mem=0\n#SBATCH --time={{ time }}\nsrun {{ command }}\n")
    assert job("slurm", "--time=5", f"--template={template}").startswith(
        "#SBATCH --mem=0\n#SBATCH --time=5\nsrun prompt-tuning train "
    )
    template.write_text("{{ tyme }}")
    with pytest.raises(UserError, match="Can't use the template .*own.sh: 'tyme' is undefined"):
        job("slurm", f"--template={template}")


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--name=My_Job", "--name is 'My_Job'"), ("--nodes=0", "--nodes is 0")],
)
def test_a_wrong_job_is_one_line(job, flag, message):
    with pytest.raises(UserError, match=message):
        job("slurm", flag)
