"""The benchmark of quantized models: what its committed results promise, and itself, small."""

import importlib
import json
import re

import pytest


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("quantization")


@pytest.fixture(scope="module")
def results(bench):
    return json.loads(bench.RESULTS.read_text())


def test_a_trained_prompt_is_as_accurate_as_on_floats(bench, results):
    for task in bench.TASKS:
        found = results["accuracy"][task]
        for way in ("int8", "nf4"):
            for score in ("validation_score", "test_score"):
                assert abs(found[way][score] - found["float32"][score]) <= 0.01, (task, way)


def test_the_page_tells_what_was_measured(bench, results, checkout):
    page = (checkout / "docs" / "weights.md").read_text()
    for way in bench.WAYS:
        process, plan = results["process"][way], results["plan"]["t5_1_1_xxl"][way]
        numbers = [
            f"{process['weight_bytes'] / 1e6:.0f} MB",
            f"{process['peak_bytes'] / 1e9:.2f} GB",
            f"{process['step_seconds']:.1f} s",
            f"{plan['weights'] / 1e9:.1f} GB",
            f"{plan['memory'] / 1e9:.1f} GB",
        ]
        for task in bench.TASKS:
            found = results["accuracy"][task][way]
            numbers += [f"{found['test_score']:.3f}", f"{found['moved_test_score']:.3f}"]
        row = " | ".join(numbers)
        assert re.search(rf"^\| {way} \| {re.escape(row)} \|$", page, re.MULTILINE), (way, row)


@pytest.mark.slow
def test_a_process_loads_the_model_and_makes_steps(bench, tmp_path):
    import jax

    from prompt_tuning.checkpoints.frozen.weights import save_weights
    from prompt_tuning.models.initialization import init_params

    path = tmp_path / "quick.safetensors"
    save_weights(path, init_params(bench.QUICK, jax.random.key(0)), bench.QUICK)
    found = bench.loaded(str(path), "nf4", 1)
    kernels = 2 * (12 * 64 * 64 + 6 * 64 * 128)
    assert (
        kernels * 4.25 / 8 < found["weight_bytes"] < 2 * (found["parameters"] - kernels) + kernels
    )
    assert found["step_seconds"] > 0
