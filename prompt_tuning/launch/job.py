"""What every engine is told: one command, on how many machines, and what surrounds it.

A command ends with one of these statuses, by which an engine tells what to do next:

    0     done
    2     a mistake of the user's, told in one line: starting it again would change nothing
    143   SIGTERM came, and all is saved: start it again
    else  it was killed, or another process of the run was lost: start it again

Whenever it is started again, the same command goes on from its last checkpoint.
"""

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prompt_tuning.errors import UserError

PROGRAM = "prompt-tuning"
USER_ERROR, STOPPED_AND_SAVED = 2, 143
SECONDS_TO_SAVE = 120
"""How long a job may take from SIGTERM to its end, before it is killed."""

COORDINATOR_PORT = 8476

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command, as it is to be run on every machine of a job.

    name: of the job; lower case, digits and hyphens, as Kubernetes has it.
    command: the arguments of `prompt-tuning`.
    nodes: machines, each with one process.
    workdir: the folder to be in; None: wherever the engine starts.
    setup: a line of shell before the command, such as `source venv/bin/activate`.
    """

    name: str
    command: Sequence[str]
    nodes: int = 1
    workdir: str | None = None
    setup: str | None = None

    def __post_init__(self):
        if not self.command:
            raise UserError(
                "There is no command to launch; write it after --, such as: prompt-tuning launch "
                "slurm --nodes 4 -- train --gin_file=..."
            )
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"--name is {self.name!r}; expected lower-case letters, digits and hyphens, from a "
                "letter on, at most 63."
            )
        if self.nodes < 1:
            raise UserError(f"--nodes is {self.nodes}; it must be at least 1.")

    @property
    def arguments(self) -> list[str]:
        """The command as a list, the program first."""
        return [PROGRAM, *self.command]

    @property
    def command_line(self) -> str:
        """The command as a line of shell, whatever quotes, spaces and brackets it has in it."""
        return shlex.join(self.arguments)

    @property
    def preparation(self) -> list[str]:
        """The lines of shell before the command."""
        return [
            *([f"cd {shlex.quote(self.workdir)}"] if self.workdir else []),
            *([self.setup] if self.setup else []),
        ]


def processes_flags(coordinator: str, count: str, index: str) -> str:
    """Returns flags that tell a process where the others are, for engines where JAX can't find out.

    The arguments are expressions of shell, which stand in double quotes.
    """
    return (
        f'"--gin.COORDINATOR_ADDRESS={coordinator}" "--gin.NUM_PROCESSES={count}" '
        f'"--gin.PROCESS_ID={index}"'
    )


def sweep_members(values: Mapping[str, Sequence[str]], folder: str) -> list[list[str]]:
    """Returns the flags of each member of a sweep: every combination of values, with its folder.

    Args:
      values: what each macro takes, by its name.
      folder: the run folders' own.

    Raises:
      UserError: two members would have the same folder.
    """
    members, names = [], set()
    for combination in itertools.product(*values.values()):
        settings = dict(zip(values, combination, strict=True))
        name = ",".join(f"{macro}={_in_file_name(value)}" for macro, value in settings.items())
        if name in names:
            raise UserError(f"Two members of the sweep would both be in {folder}/{name}.")
        names.add(name)
        flags = [f"--gin.{macro}={value}" for macro, value in settings.items()]
        members.append([*flags, f"--gin.MODEL_DIR={folder.rstrip('/')}/{name}"])
    return members


def _in_file_name(value: str) -> str:
    return re.sub(r"[^-\w.]+", "_", value).strip("_")
