"""Machines by name."""

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.parallel.accelerators import ACCELERATORS
from prompt_tuning.planning.machines import find_machine


@pytest.mark.parametrize(
    ("name", "devices", "expected"),
    [
        ("h200", None, "1 x H200"),
        ("A100-40GB", 8, "8 x A100-40GB"),
        ("v5e-16", None, "16 x v5e"),
        ("v5litepod-16", None, "16 x v5e"),
        ("v6e-8", None, "8 x v6e"),
        # These names count cores: JAX has a device for each on v3, for two on v4 and v5p.
        ("v3-32", None, "32 x v3"),
        ("v4-32", None, "16 x v4"),
        ("v5p-8", 4, "4 x v5p"),
    ],
)
def test_names(name, devices, expected):
    assert str(find_machine(name, devices)) == expected


@pytest.mark.parametrize("accelerator", ACCELERATORS, ids=lambda a: a.name)
def test_every_accelerator_of_the_table(accelerator):
    machine = find_machine(accelerator.name, 2)
    assert machine.accelerator is accelerator
    assert accelerator.is_gpu == (accelerator.name[0] in "AH")


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("a100", None, "Did you mean 'A100-40GB' or 'A100-80GB'?"),
        ("h2000", None, "Did you mean 'h200'"),
        ("v5f-16", None, "Unknown accelerator 'v5f-16'; expected one of v3, v4, v5e"),
        ("v4-7", None, "counts cores, 2 a chip"),
        ("v5e-0", None, "There is no v5e-0"),
        ("v5e-16", 8, "--devices is 8, but v5e-16 has 16"),
        ("h200", 0, "--devices is 0; it must be at least 1"),
    ],
)
def test_what_there_is_not(name, devices, message):
    with pytest.raises(UserError) as error:
        find_machine(name, devices)
    assert message in str(error.value)


def test_gpus_beyond_a_host_are_told_apart():
    assert not find_machine("h100", 8).across_hosts
    assert find_machine("h100", 16).across_hosts
    assert not find_machine("v5e-16").across_hosts
