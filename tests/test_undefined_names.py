"""Names that are used are defined: what ruff and pyright can't be asked.

jaxtyping's shapes, such as `Int[Array, "rows"]`, look to both like forward references to names that
aren't there, so the rules that find such names are off. Here they are on, outside of strings.
"""

import json
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def undefined_names(*paths: Path) -> list[str]:
    """Returns "file:line: name" of each that isn't a shape in quotes."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F821"]
    command += ["--output-format=json", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    found = []
    for each in json.loads(done.stdout):
        row, column = each["location"]["row"], each["location"]["column"]
        line = Path(each["filename"]).read_text().splitlines()[row - 1]
        if line[: column - 1][-1:] != '"' and line[column - 1] != '"':
            found.append(f"{each['filename']}:{row}: {each['message']}")
    return found


def test_every_name_is_defined():
    folders = ("prompt_tuning", "benchmarks", "experiments", "tests")
    assert undefined_names(*(CHECKOUT / folder for folder in folders)) == []


def test_a_forgotten_import_is_found_and_a_shape_is_not(tmp_path):
    file = tmp_path / "module.py"
    file.write_text('def f(x: Int[Array, "rows"]):\n    return trim(x)\n')
    names = [found.rpartition(" ")[2] for found in undefined_names(file)]
    assert names == ["`Int`", "`Array`", "`trim`"]
