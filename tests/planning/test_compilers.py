"""What is told to the accelerators' compilers, and what they say."""

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.parallel.accelerators import ACCELERATORS
from prompt_tuning.planning.compilers import (
    DoesNotFit,
    _slice,
    compiled,
    environment,
    missing,
)
from prompt_tuning.planning.machines import find_machine


@pytest.mark.parametrize(
    ("message", "needed", "temporaries_only"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (41.25G) exceeds available HBM (15.75G).",
            41.25 * 2**30,
            True,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 512.50M of 96.00M "
            "hbm. Exceeded hbm capacity by 416.50M.\n\nTotal hbm usage >= 1.00G:",
            512.5 * 2**20,
            False,
        ),
    ],
)
def test_a_refusal_is_told_in_one_line(message, needed, temporaries_only):
    error = DoesNotFit(message)
    assert (error.needed, error.temporaries_only) == (needed, temporaries_only)
    assert str(error).startswith("The compiler refuses it: Ran out") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "devices", "topology"),
    [
        ("v5e", 1, "v5e:2x2"),
        ("v5e", 8, "v5e:2x4"),
        ("v6e", 16, "v6e:4x4"),
        ("v3", 32, "v3:4x4"),
        ("v5p", 4, "v5p:2x2x1"),
        ("v4", 16, "v4:2x2x4"),
        ("v4", 32, "v4:2x4x4"),
    ],
)
def test_slices_of_google_cloud(name, devices, topology):
    found = _slice(name, devices)
    assert found["topology_name"] == topology
    assert ("chip_config_name" in found) == (name == "v4")


def test_a_slice_of_another_number_of_devices():
    with pytest.raises(UserError, match="192 isn't one; plan for 128 or 256"):
        _slice("v4", 192)


def test_the_environment_keeps_the_users_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    for accelerator in (None, *ACCELERATORS):
        found = environment(accelerator, 3)
        flags = found["XLA_FLAGS"].split()
        assert flags[:2] == ["--xla_mine=1", "--xla_force_host_platform_device_count=3"]
        assert ("--xla_gpu_autotune_level=0" in flags) == bool(accelerator and accelerator.is_gpu)
        assert found["JAX_PLATFORMS"] == "cpu"


def test_what_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "'prompt-tuning[tpu]'" in missing(find_machine("v5e-1").accelerator)
    assert "'prompt-tuning[cuda]'" in missing(find_machine("h200").accelerator)


def test_an_analysis_of_any_program():
    x = jnp.zeros((64, 32))
    found = compiled(jax.jit(lambda x: (x @ x.T) @ x).lower(x))
    assert (found.arguments, found.outputs) == (4 * 64 * 32, 4 * 64 * 32)
    assert found.temporaries >= 4 * 64 * 64
    assert found.flops == 2 * 2 * 64 * 64 * 32
    h200 = find_machine("h200").accelerator
    least = found.flops / (h200.flops / 2)
    assert found.seconds(h200) >= least
    assert found.seconds(h200) == pytest.approx(sum(part for *_, part in found.parts(h200)))
