"""Hands a written job to the engine's own program."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.errors import UserError


def submit(program: Sequence[str], file: Path, *, where: str) -> None:
    """Runs an engine's program on a job's file; what it prints is the user's to see.

    Args:
      program: and its arguments before the file's name.
      file: the job.
      where: the page that tells how to get the program.

    Raises:
      UserError: the program isn't here, or it refuses the job.
    """
    name = program[0]
    if shutil.which(name) is None:
        raise UserError(
            f"Can't submit {file}: {name} is not on this machine ({where}). Install it, or run "
            f"`{' '.join([*program, str(file)])}` where it is."
        )
    status = subprocess.run([*program, str(file)]).returncode
    if status:
        raise UserError(f"{name} ended with status {status} and took no job; {file} is kept.")
