"""Every trial has a test that bears its number."""

import ast
import re
from pathlib import Path

TRIALS = range(1, 38)


def test_every_trial_has_a_test():
    found = {
        int(number)
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
        and (numbers := re.match(r"test_trial_(\d+(?:_and_\d+)*)_", node.name))
        for number in numbers[1].split("_and_")
    }
    assert [trial for trial in TRIALS if trial not in found] == []
