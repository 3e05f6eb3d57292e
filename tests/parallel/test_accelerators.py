"""The table of data sheets: each kind of device once, figures of the right order."""

import pytest

from prompt_tuning.parallel.accelerators import ACCELERATORS, accelerator_of


def test_a_device_is_found_by_what_jax_calls_it():
    assert accelerator_of("TPU v5 lite").name == "v5e"
    assert accelerator_of("NVIDIA H200").memory == 141e9
    assert accelerator_of("cpu") is None
    kinds = [kind for accelerator in ACCELERATORS for kind in accelerator.kinds]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("found", ACCELERATORS, ids=lambda found: found.name)
def test_figures_are_in_base_units(found):
    assert 5e13 < found.flops < 2e15
    assert 1e10 < found.memory < 2e11
    assert 1e11 < found.interconnect_bandwidth < found.memory_bandwidth < 1e13
    # Operations for each byte from memory: what decides whether a program is bound by either.
    assert 100 < found.flops / found.memory_bandwidth < 700
