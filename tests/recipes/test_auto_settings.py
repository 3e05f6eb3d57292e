"""A run with 'auto' settings on an accelerator, which JAX's name for the CPU stands in for."""

import jax
import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning.recipes import frozen_base

# The kernel of flash attention runs slowly on a CPU.
pytestmark = pytest.mark.slow

TASK = "tinyworld_rte"
FEW = {"data.max_eval_examples": 16, "data.max_examples": 64}
AUTO_ON_TPU = {"param_dtype": "bfloat16", "compute_dtype": "bfloat16", "unroll": 0}


def train(folder, base, **settings):
    method = pt.soft_prompt(length=2, initializer=pt.sampled_vocabulary())
    arguments = {"steps": 2, "eval_every": 2, "batch_size": 8, "settings": {**FEW, **settings}}
    return pt.train(base, method, TASK, folder=folder, **arguments)


@pytest.fixture
def tpu(monkeypatch):
    """Everything but the name is the CPU's."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(frozen_base, "memory_of", lambda device: 16e9)
    return monkeypatch


def test_a_run_moves_from_an_accelerator_to_a_cpu(tpu, tmp_path, capsys):
    base = pt.load("tinyworld_tiny")
    assert {name: getattr(base.compute, name) for name in AUTO_ON_TPU} == AUTO_ON_TPU
    run = train(tmp_path / "run", base)
    assert run.base.compute.remat is False  # it all fits
    assert (
        "bfloat16 weights, bfloat16 activations; flash attention; layers unrolled"
        in capsys.readouterr().err
    )
    assert run.prompt.dtype == np.float32

    tpu.undo()
    here = pt.load("tinyworld_tiny")  # as saved, which is bfloat16
    assert pt.load_run(tmp_path / "run").base.compute == here.compute
    # The prompt is this model's, whatever the dtype; the run would go on as another.
    assert 0 <= pt.evaluate(here, run, TASK, settings={"data.max_eval_examples": 16}).score <= 1
    with pytest.raises(pt.UserError, match="compute_dtype is 'bfloat16' there, 'float32' now"):
        train(tmp_path / "run", here)
    same = pt.load("tinyworld_tiny", param_dtype="bfloat16", compute_dtype="bfloat16")
    np.testing.assert_array_equal(train(tmp_path / "run", same).prompt, run.prompt)


def test_layers_are_recomputed_where_memory_is_short(tpu, tmp_path, capsys):
    tpu.setattr(frozen_base, "memory_of", lambda device: 1e6)
    base = pt.load("tinyworld_tiny")
    run = train(tmp_path / "run", base)
    assert run.base.compute.remat is True
    assert "recomputed backward" in capsys.readouterr().err
    # More memory: the same run, up to rounding.
    tpu.setattr(frozen_base, "memory_of", lambda device: 16e9)
    train(tmp_path / "run", base)
    assert "remat is False now and was True: results differ by rounding" in capsys.readouterr().err
