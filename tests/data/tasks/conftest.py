"""A few rows of each of the paper's tasks in the official layouts, and TFDS made to read them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def official_files(checkout, tmp_path_factory) -> Path:
    """The data folder that `official_files.py` fills."""
    spec = importlib.util.spec_from_file_location(
        "official_files", checkout / "tests" / "official_files.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write(tmp_path_factory.mktemp("official_files"))


@pytest.fixture
def texts(official_files) -> Callable[..., list[tuple[str, str]]]:
    """The inputs and targets of a task's split of `official_files`."""
    from prompt_tuning.data.tasks.task import get_task

    def texts(name: str, split: str = "validation") -> list[tuple[str, str]]:
        examples = get_task(name).examples(split, str(official_files))
        return [(example.inputs, example.targets) for example in examples]

    return texts
