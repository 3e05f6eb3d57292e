"""The benchmark of loading, on a tiny model: every form is made whole, loaded and counted."""

import importlib.util

import pytest

from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import count_parameters


@pytest.fixture(scope="module")
def bench(checkout):
    spec = importlib.util.spec_from_file_location("loading", checkout / "benchmarks" / "loading.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("form", "size"), [("huggingface", 4), ("t5x", 2), ("safetensors", 2)])
def test_each_form_is_loaded_whole(bench, tmp_path, form, size):
    make, name, dtype = bench.FORMS[form]
    make(tmp_path, bench.QUICK)
    found = bench.load(str(tmp_path / name), dtype)
    assert found["parameters"] == count_parameters(abstract_params(bench.QUICK))
    assert found["bytes_loaded"] == size * found["parameters"]
    assert found["peak_bytes"] >= found["bytes_before_loading"] > 50e6
    assert found["peak_over_loaded"] == found["peak_bytes"] / found["bytes_loaded"]


def test_the_benchmarks_model_has_a_billion_parameters(bench):
    assert 1e9 < count_parameters(abstract_params(bench.FULL)) < 1.02e9
