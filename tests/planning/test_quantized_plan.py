"""A plan for a quantized model: its bytes, its FLOPs, and when it is proposed."""

import dataclasses

import pytest

from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.planning.estimate import changes
from prompt_tuning.planning.machines import find_machine
from prompt_tuning.planning.program import needs_of, weights_on_device
from prompt_tuning.planning.report import make_plan


def quantized(work, to: str):
    compute = dataclasses.replace(work.compute, quantization=to, quantization_block=16)
    return dataclasses.replace(work, compute=compute)


@pytest.mark.parametrize(("to", "bits"), [("int8", 8.25), ("nf4", 4.25)])
def test_weights_of_xxl_over_eight_devices(work, to, bits):
    compute = Compute(param_dtype="bfloat16", quantization=to)
    kernels = 24 * (12 * 4096 * 4096 + 6 * 4096 * 10240)
    norms = 4096 * 5 * 24 + 2 * 4096
    others = 2 * (2 * 32128 * 4096 + 2 * 64 * 32)
    one = dataclasses.replace(work, config=get_config("t5_1_1_xxl"), compute=compute)
    assert weights_on_device(one) == kernels * bits / 8 + others + 2 * norms
    eight = dataclasses.replace(one, model_parallel=8)
    assert weights_on_device(eight) == (kernels * bits / 8 + others) / 8 + 2 * norms


def test_it_needs_fewer_bytes_and_as_many_flops(work, needs):
    nf4 = quantized(work, "nf4")
    found = needs_of(nf4)
    assert found.weights == weights_on_device(nf4) < needs.weights
    assert found.analysis.flops == needs.analysis.flops
    plan = make_plan(nf4, found, find_machine("h200"), 30)
    assert "weights nf4 in blocks of 16 and bfloat16, activations" in plan.text()


def test_it_is_proposed_before_inputs_are_cut(work):
    small = dataclasses.replace(
        work, config=get_config("t5_1_1_small"), compute=Compute(remat=True)
    )
    wide = dataclasses.replace(small, input_length=256, batch_size=1)
    tried = dict(changes(wide))
    names = list(tried)
    assert [n.partition(": ")[2] for n in names[1:3]] == [
        "--gin_file=quantization/int8.gin",
        "--gin_file=quantization/nf4.gin",
    ]
    assert "bfloat16 weights" in names[0] and "inputs cut" in names[3]
    int8, nf4 = (weights_on_device(tried[name](wide)) for name in names[1:3])
    assert nf4 < int8 < weights_on_device(wide)
    assert not [name for name, _ in changes(quantized(work, "int8")) if "kernels" in name]
