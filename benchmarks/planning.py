"""Updates the plans in docs/planning.md: the output of each command on the page.

    python benchmarks/planning.py [WORD]

With a word, such as `v5e`, only the plans whose command contains it. They need the accelerators'
compilers, `prompt-tuning[tpu]` and `prompt-tuning[cuda]`; the plan of an accelerator whose compiler
isn't installed stays as it is. Each takes ten seconds to two minutes of CPU time, and more if it
searches for changes that fit. The tests check the page by `plans` and `printed`.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "planning.md"

_PLAN = re.compile(
    r"^    (?P<command>prompt-tuning plan (?:[^\n]*\\\n)*[^\n]*)\n\n```text\n(?P<output>.*?)```$",
    re.MULTILINE | re.DOTALL,
)


def plans(page: str) -> Iterator[tuple[list[str], str]]:
    """Yields the arguments of each command on the page, and its printed output."""
    for found in _PLAN.finditer(page):
        words = shlex.split(found["command"].replace("\\\n", " "))
        yield words[1:], found["output"]


def printed(arguments: list[str]) -> str:
    """Runs a command of ours and returns what it prints."""
    command = [sys.executable, "-m", "prompt_tuning.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def rewritten(page: str, word: str = "") -> str:
    """Returns the page with updated plans, or only those whose command contains the word."""

    def anew(found: re.Match[str]) -> str:
        if word not in found["command"]:
            return found[0]
        arguments = shlex.split(found["command"].replace("\\\n", " "))[1:]
        output = printed(arguments)
        if "emulated CPU devices" in output:
            print(f"Kept, for want of the compiler: {found['command']}", file=sys.stderr)
            return found[0]
        return f"    {found['command']}\n\n```text\n{output}```"

    return _PLAN.sub(anew, page)


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), word), encoding="utf-8")
