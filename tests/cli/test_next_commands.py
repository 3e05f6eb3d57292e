"""The commands that training suggests at its end fit the task."""

import dataclasses

import pytest

from prompt_tuning.cli.next_commands import infer_command
from prompt_tuning.data.tasks.catalog import get_task


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("glue_sst2", "infer runs/x --input lines.txt"),
        ("superglue_rte", '{"hypothesis": "...", "premise": "..."}'),
        ("superglue_record", '{"passage": "...", "entities": ["..."], "query": "..."})'),
        ("superglue_wsc", "lines like the training data's"),
    ],
)
def test_the_suggested_input_has_the_tasks_columns(name, suggested):
    assert suggested in infer_command("runs/x", [get_task(name)])


def test_a_mixture_names_no_columns():
    tasks = [get_task("superglue_rte"), dataclasses.replace(get_task("glue_sst2"))]
    assert "training data's" in infer_command("runs/x", tasks)
