"""The benchmark's formula against FLOPs counted in the program, and the benchmark itself, small."""

import dataclasses
import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5, abstract_params


@pytest.fixture(scope="module")
def bench(checkout):
    spec = importlib.util.spec_from_file_location("step", checkout / "benchmarks" / "step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def product_flops(jaxpr):
    """Counts 2mkn for every product in a program, those of a loop's body once a trip."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += (
                2
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(shape[axis] for axis in contracted)
            )
        trips = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += trips * sum(map(product_flops, jaxprs_in_params(equation.params)))
    return total


@pytest.mark.parametrize("gated_mlp", [True, False])
def test_the_forward_formula_is_exact(bench, gated_mlp):
    config = dataclasses.replace(bench.QUICK.config, gated_mlp=gated_mlp, num_decoder_layers=3)
    setting = dataclasses.replace(bench.QUICK, config=config, batch=2, target=5)
    batch = {
        "encoder_input_tokens": jnp.ones((2, setting.source), jnp.int32),
        "decoder_input_tokens": jnp.ones((2, setting.target), jnp.int32),
    }
    injection = Injection(encoder_prompt=jnp.ones((1, setting.prompt, config.embed_dim)))
    program = jax.make_jaxpr(T5(config).apply)(
        {"params": abstract_params(config)}, batch, injection
    )
    assert product_flops(program.jaxpr) == bench.minimum_flops(setting)["forward"]


def test_the_minimum_for_the_papers_small_model(bench):
    """Worked by hand: 8 encoder layers of 9.246, 8 decoder layers of 1.810, logits of 2.106."""
    flops = bench.minimum_flops(bench.FULL)
    assert flops["forward"] == pytest.approx((8 * 9.246 + 8 * 1.810 + 2.106) * 1e9, rel=1e-3)
    # Backward as much again, attention's products twice, and nothing where no prompt comes from.
    assert 1.0 < flops["backward"] / flops["forward"] < 1.06


def test_the_backward_pass_computes_no_gradient_of_a_weight(bench):
    """Those would make it half as much again; elementwise work, which XLA counts, is a few percent.

    The minimum must also be one: XLA can't do with less.
    """
    ratio = bench.xla_flops(bench.QUICK) / bench.minimum_flops(bench.QUICK)["total"]
    assert 1.0 < ratio < 1.1


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(bench, tmp_path, capsys):
    path = tmp_path / "results" / "step.json"
    bench.main(["--quick", "--steps=3", f"--output={path}"])
    result = json.loads(path.read_text())
    assert result["steps"] == 3 and result["model"] == "quick"
    assert 0 < result["step_seconds_best"] <= result["step_seconds_median"]
    assert 0 < result["fraction_of_peak"] < 1
    printed = capsys.readouterr().out
    assert "XLA / minimum" in printed and f"{result['xla_over_minimum']:.4f}" in printed
