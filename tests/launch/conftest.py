"""Stand-ins for the programs that a job's file calls, so that it is really run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# srun, gcloud and xpk hand on what they are to run; the first two drop their own options.
PROGRAMS = {
    "srun": 'while [[ "$1" == --* ]]; do shift; done\necho $$ > "$SHIMS/step"\nexec "$@"\n',
    "scontrol": 'echo "$@" >> "$SHIMS/scontrol.log"\n',
    "sleep": "",
    "gcloud": 'for flag; do case "$flag" in --command=*) exec bash -c "${flag#*=}" ;; esac; done\n',
}
PROGRAMS["xpk"] = PROGRAMS["gcloud"]

RECORDER = """#!{python}
import json, os, sys
with open(os.environ["SHIMS"] + "/ran", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
with open(os.environ["SHIMS"] + "/ran") as file:
    count = len(file.readlines())
statuses = os.environ["STATUSES"].split()
sys.exit(int(statuses[min(count, len(statuses)) - 1]))
"""


class Machine:
    """A folder of stand-ins; `prompt-tuning` notes its arguments, unless it is the real one."""

    def __init__(self, folder: Path, *, real: bool = False):
        self.folder = folder
        folder.mkdir()
        for name, script in PROGRAMS.items():
            self._add(name, f"#!/bin/bash\n{script}")
        self._add(
            "prompt-tuning",
            f'#!/bin/bash\nexec {sys.executable} -m prompt_tuning.cli "$@"\n'
            if real
            else RECORDER.format(python=sys.executable),
        )

    def _add(self, name: str, script: str) -> None:
        (self.folder / name).write_text(script)
        (self.folder / name).chmod(0o755)

    def environment(self, **variables: str) -> dict[str, str]:
        path = f"{self.folder}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "SHIMS": str(self.folder), **variables}

    def run(self, script: str, *statuses: int, **variables: str) -> int:
        """Runs a script with bash; `prompt-tuning` ends with these statuses, one after another."""
        told = " ".join(map(str, statuses or (0,)))
        done = subprocess.run(
            ["bash", "-c", script], env=self.environment(STATUSES=told, **variables), timeout=60
        )
        return done.returncode

    @property
    def ran(self) -> list[list[str]]:
        """The arguments of `prompt-tuning`, each time it was run."""
        return [json.loads(line) for line in (self.folder / "ran").read_text().splitlines()]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path / "bin")


@pytest.fixture
def real_machine(tmp_path) -> Machine:
    return Machine(tmp_path / "bin", real=True)
