"""The module `tiny_run.py`, which other tests start as a program, as a fixture."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny_run() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "tiny_run", Path(__file__).with_name("tiny_run.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
