"""A few rows of each of the paper's tasks in the official layouts, as text."""

from collections.abc import Callable

import pytest


@pytest.fixture
def texts(official_files) -> Callable[..., list[tuple[str, str]]]:
    """The inputs and targets of a task's split of `official_files`."""
    from prompt_tuning.data.tasks.catalog import get_task

    def texts(name: str, split: str = "validation") -> list[tuple[str, str]]:
        examples = get_task(name).examples(split, str(official_files))
        return [(example.inputs, example.targets) for example in examples]

    return texts
