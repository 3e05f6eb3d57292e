"""Every command in docs/launching.md writes a job."""

import re
import shlex

from prompt_tuning.cli.__main__ import main


def test_the_pages_commands(checkout, capsys):
    page = (checkout / "docs" / "launching.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [
        shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()
    ]
    assert {command[2] for command in commands} == {"slurm", "tpu", "jobset", "xpk", "skypilot"}
    for program, *arguments in commands:
        assert program == "prompt-tuning"
        main(arguments)
        assert "prompt-tuning train" in capsys.readouterr().out
