"""Processes that take turns, tried on little ones; and what is reported of them."""

import importlib
import json
import sys

import pytest

WORKER = """
import json, sys
setup = json.loads(sys.stdin.readline())
print(json.dumps({"versions": {"toy": "1"}}), flush=True)
for line in sys.stdin:
    pieces = json.loads(line)["pieces"]
    with open(setup["log"], "a") as log:
        log.write(setup["letter"])
    if setup["letter"] == "X":
        sys.exit(3)
    print(json.dumps({"seconds": pieces, "peak_bytes": 7}), flush=True)
"""


@pytest.fixture(scope="module")
def contenders():
    return importlib.import_module("contenders")


@pytest.fixture
def toy(contenders, tmp_path):
    script = tmp_path / "toy.py"
    script.write_text(WORKER)

    def make(letter):
        setup = {"letter": letter, "log": str(tmp_path / "log")}
        return contenders.Contender(name=letter, command=[sys.executable, str(script)], setup=setup)

    return make


def test_they_take_turns(contenders, toy, tmp_path):
    work = {"A": [1.0, 2.0], "B": [5.0]}
    found = contenders.take_turns([toy("A"), toy("B")], work, rounds=2)
    # Each warms up once; then they alternate.
    assert (tmp_path / "log").read_text() == "AB" + "ABAB"
    assert found["A"]["seconds"] == [[1.0, 1.0], [2.0, 2.0]]
    assert found["B"]["peak_bytes"] == 7 and found["B"]["versions"] == {"toy": "1"}
    assert contenders.median_total(found["A"]) == 3.0


def test_one_that_ends_is_told(contenders, toy):
    with pytest.raises(SystemExit, match="X ended with status 3"):
        contenders.take_turns([toy("X")], {"X": [1.0]}, rounds=1)


def test_the_table_tells_what_is_met(contenders):
    rows = [("a", 1.0, "<=", 2.0), ("b", 1.0, ">=", 2.0), ("c", 1.0, "", None)]
    table, found = contenders.comparison("Title", rows)
    lines = table.splitlines()
    assert lines[0] == "Title" and lines[1].endswith("target <= 2: met")
    assert lines[2].endswith("target >= 2: missed") and "target" not in lines[3]
    assert [row["met"] for row in found] == [True, False, None]


def test_a_result_tells_its_machine(contenders, tmp_path):
    contenders.write(tmp_path / "results" / "x.json", {"value": 1})
    written = json.loads((tmp_path / "results" / "x.json").read_text())
    assert written["value"] == 1
    assert {"cpu", "cores", "flags", "versions", "date"} <= set(written["machine"])


def test_a_given_interpreter_is_taken(contenders):
    assert contenders.peer_python("/some/python") == "/some/python"
