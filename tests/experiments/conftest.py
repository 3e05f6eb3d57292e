"""The experiments' scripts as modules."""

import importlib.util
import sys
import types
from collections.abc import Callable

import pytest

LoadScript = Callable[[str, str], types.ModuleType]


@pytest.fixture
def load_experiment(checkout, monkeypatch) -> LoadScript:
    """Loads a script of an experiment by their names; scripts beside it can be imported, too."""

    def load(experiment: str, name: str) -> types.ModuleType:
        folder = checkout / "experiments" / experiment
        monkeypatch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
