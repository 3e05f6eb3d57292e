"""Job files of all engines: their templates, template variables, and submission.

An engine decides what to do next by a command's exit status:

    0     done
    2     user error, reported in one line: restarting wouldn't help
    143   stopped by SIGTERM with everything saved: restart
    else  killed, or another process of the run was lost: restart

A restarted command resumes from its last checkpoint.
"""

import functools
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from prompt_tuning.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"

_COORDINATOR_PORT = 8476
_CONSTANTS = {
    "user_error": 2,
    "process_lost": 3,
    "stopped_and_saved": 143,
    # Maximum seconds from SIGTERM until the job is killed.
    "seconds_to_save": 120,
}
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # Kubernetes' format


class Engine(NamedTuple):
    """A scheduler.

    Attributes:
      summary: description of the job.
      template: file in `templates/`.
      file: suffix of the job file's name, after the job's name.
      program: command that submits the file.
      url: where to get that program.
    """

    summary: str
    template: str
    file: str
    program: tuple[str, ...]
    url: str


ENGINES = {
    "slurm": Engine(
        "a batch script for sbatch; an array for a sweep",
        "slurm.sh",
        "sbatch.sh",
        ("sbatch",),
        "https://slurm.schedmd.com",
    ),
    "tpu": Engine(
        "a gcloud command for every worker of a Cloud TPU VM or pod slice",
        "tpu.sh",
        "gcloud.sh",
        ("bash",),
        "https://cloud.google.com/sdk",
    ),
    "jobset": Engine(
        "a JobSet for Kubernetes",
        "jobset.yaml",
        "jobset.yaml",
        ("kubectl", "apply", "-f"),
        "https://kubernetes.io/docs/tasks/tools",
    ),
    "xpk": Engine(
        "an xpk command for a GKE cluster of TPUs",
        "xpk.sh",
        "xpk.sh",
        ("bash",),
        "https://github.com/AI-Hypercomputer/xpk",
    ),
    "skypilot": Engine(
        "a managed job for SkyPilot, in any cloud",
        "skypilot.yaml",
        "sky.yaml",
        ("sky", "jobs", "launch", "--yes"),
        "https://docs.skypilot.co",
    ),
}


def render(template: str | Path, command: Sequence[str], options: Mapping[str, Any]) -> str:
    """Returns the text of a job that runs one command on each of its machines.

    Args:
      template: a file in `templates/`, or the path of the user's own.
      command: the arguments of `prompt-tuning`.
      options: further template variables, the flags of `prompt-tuning launch`.

    Raises:
      UserError: the name, the number of machines or the template is wrong.
    """
    if not _NAME.fullmatch(options["name"]):
        raise UserError(
            f"--name is {options['name']!r}; expected at most 63 lower-case letters, digits and "
            "hyphens, starting with a letter."
        )
    if options.get("nodes", 1) < 1:
        raise UserError(f"--nodes is {options['nodes']}; it must be at least 1.")
    path = TEMPLATES / template  # an absolute path is unchanged
    workdir, setup = options.get("workdir"), options.get("setup")
    lines = [*([f"cd {shlex.quote(workdir)}"] if workdir else []), *([setup] if setup else [])]
    try:
        return (
            _environment()
            .from_string(path.read_text(encoding="utf-8"))
            .render(
                **_CONSTANTS,
                **options,
                command=shlex.join(["prompt-tuning", *command]),
                preparation="".join(f"{line}\n" for line in lines),
                process_flags=_process_flags,
            )
        )
    except (OSError, UnicodeDecodeError, jinja2.TemplateError) as error:
        raise UserError(f"Can't use the template {path}: {error}.") from error


def submit(engine: Engine, file: Path) -> None:
    """Submits a job file with the engine's program, and shows its output.

    Raises:
      UserError: the program isn't installed, or rejects the job.
    """
    name = engine.program[0]
    if shutil.which(name) is None:
        raise UserError(
            f"Can't submit {file}: {name} is not installed here ({engine.url}). Install it, or "
            f"run `{' '.join([*engine.program, str(file)])}` where it is installed."
        )
    status = subprocess.run([*engine.program, str(file)]).returncode
    if status:
        raise UserError(
            f"{name} failed with exit status {status} and didn't accept the job; {file} is kept."
        )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"shell": shlex.quote, "yaml": _yaml, "one_line": _one_line}
    return environment


def _yaml(text: str) -> str:
    """Formats a text as YAML: as a block if it has several lines, otherwise quoted."""
    style = "|" if "\n" in text else '"'
    options = {"default_style": style, "allow_unicode": True, "width": math.inf}
    return yaml.safe_dump(text, **options).rstrip("\n")


def _one_line(script: str) -> str:
    """Quotes a script as a single-line Bash word."""
    for character, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n")):
        script = script.replace(character, escape)
    return f"$'{script}'"


def _process_flags(coordinator: str, count: int | str, index: str) -> str:
    """Returns flags that describe the other processes, for engines that JAX doesn't detect.

    The arguments are shell expressions, expanded within double quotes.
    """
    return (
        f'"--gin.COORDINATOR_ADDRESS={coordinator}:{_COORDINATOR_PORT}" '
        f'"--gin.NUM_PROCESSES={count}" "--gin.PROCESS_ID={index}"'
    )
