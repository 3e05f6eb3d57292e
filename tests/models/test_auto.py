"""What 'auto' settings come to, by model and hardware."""

import dataclasses

import jax
import pytest

from prompt_tuning.models import auto
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_shapes
from prompt_tuning.recipes.paths import shipped_configs

V5E = 15.75 * 2**30  # usable bytes, by its compiler
# The paper's examples: 512 tokens with a prompt of 100, and targets of up to 62.
LENGTHS = {"source": 612, "target": 62}
BFLOAT16 = Compute(param_dtype="bfloat16", compute_dtype="bfloat16")


def weights_of(config, share=1):
    leaves = abstract_params(config, BFLOAT16)
    return sum(leaf.size * 2 for leaf in jax.tree.leaves(leaves)) / share


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_accelerators_compute_in_bfloat16(platform):
    assert auto.auto_param_dtype(platform) == "bfloat16"
    compute = auto.resolved(Compute(param_dtype="bfloat16"), get_config("t5_1_1_small"), platform)
    assert compute.product_dtype == compute.compute_dtype == "bfloat16"
    assert compute.attention == "flash"
    assert compute.remat == "auto"  # until the batch is known
    odd = dataclasses.replace(get_config("t5_1_1_small"), head_dim=48)
    assert auto.resolved(Compute(), odd, platform).attention == "plain"


def test_a_cpu_computes_as_it_always_did():
    assert auto.auto_param_dtype("cpu") is None  # as saved
    compute = auto.resolved(Compute(), get_config("t5_1_1_xxl"), "cpu")
    assert compute == Compute(attention="plain")
    assert compute.product_dtype == "float32"


@pytest.mark.parametrize(
    ("size", "cpu", "accelerator"),
    [
        ("t5_small", 0, 0),
        ("t5_1_1_small", 0, 0),
        ("mt5_small", 0, 0),
        ("t5_1_1_base", 1, 0),
        ("t5_base", 1, 0),
        ("t5_1_1_large", 1, 0),
        ("t5_1_1_xl", 1, 1),
        ("t5_1_1_xxl", 1, 1),
    ],
)
def test_small_models_are_unrolled(size, cpu, accelerator):
    config = get_config(size)
    assert auto.resolved(Compute(), config, "cpu").unroll == cpu
    assert auto.resolved(Compute(), config, "tpu").unroll == accelerator
    assert auto.resolved(Compute(), config, "gpu").unroll == accelerator
    assert auto.resolved(Compute(quantization="nf4"), config, "cpu").unroll == 1
    assert auto.resolved(Compute(quantization="nf4"), config, "tpu").unroll == 1


def test_what_is_given_is_kept():
    config, given = get_config("t5_1_1_small"), {"compute_dtype": "float32", "unroll": 2}
    compute = Compute(attention="plain")
    for platform in ("cpu", "tpu"):
        found = auto.resolved(compute, config, platform, remat=True, **given)
        assert found == dataclasses.replace(compute, remat=True, **given)


@pytest.mark.parametrize(
    ("size", "rows", "model_parallel", "memory", "expected"),
    [
        # A v5e-16 as 4 x 4 at the paper's batch of 32.
        ("t5_1_1_xxl", 8, 4, V5E, False),
        ("t5_1_1_xxl", 16, 4, V5E, True),
        ("t5_1_1_xxl", 32, 1, 80e9, True),
        ("t5_1_1_xl", 32, 1, 80e9, False),
        ("t5_1_1_xl", 32, 1, 40e9, True),
        ("t5_1_1_base", 32, 1, V5E, False),
    ],
)
def test_layers_are_recomputed_only_where_memory_is_short(
    size, rows, model_parallel, memory, expected
):
    config = get_config(size)
    sizes = {"rows": rows, "trained": {}, "model_parallel": model_parallel, **LENGTHS}
    kept = auto.kept_bytes(config, BFLOAT16, **sizes)
    weights = weights_of(config, model_parallel)
    assert auto.needs_remat(kept, weights, memory) == expected
    assert not auto.needs_remat(kept, weights, None)


def test_kept_bytes_by_the_layer():
    """Counted by hand for Small: 512 wide, 6 heads of 64, 1024 hidden twice, 8 and 8 layers."""
    config, sizes = (
        get_config("t5_1_1_small"),
        {"rows": 2, "source": 10, "target": 3, "trained": {}},
    )
    encoder = 10 * (2 * 512 + 3 * 384 + 2 * 1024)
    decoder = 3 * (3 * 512 + 4 * 384 + 2 * 1024)
    attention = 6 * 3 * (3 + 10)
    flash = auto.kept_bytes(config, Compute(attention="flash"), **sizes)
    assert flash == 2 * 8 * (encoder + decoder + attention) * 4
    long = auto.kept_bytes(config, Compute(attention="flash"), **{**sizes, "target": 33})
    decoder, attention = 11 * decoder + 10 * 2 * 384, 6 * 33 * (33 + 10)
    assert long == 2 * 8 * (encoder + decoder + attention) * 4
    assert auto.kept_bytes(config, Compute(), **sizes) == flash + 2 * 8 * 6 * 10 * 10 * 4


def test_kept_bytes_of_trained_weights():
    """The inputs of trained kernels' products; with trained biases, also attention's weights."""
    config, sizes = get_config("t5_1_1_small"), {"rows": 2, "source": 10, "target": 3}
    kernel, everything = "encoder/layers/mlp/wo/kernel", dict.fromkeys(parameter_shapes(config), 0)
    assert kernel in everything

    def kept(trained):
        return auto.kept_bytes(config, Compute(attention="flash"), **sizes, trained=trained)

    frozen = kept({})
    assert kept({"prompt": {"kernel": 0}}) == frozen
    inputs = 10 * (2 * 512 + 384 + 1024) + 3 * (3 * 512 + 2 * 384 + 1024)
    assert kept({kernel: 0}) == frozen + 2 * 8 * inputs * 4
    assert kept(everything) == kept({kernel: 0}) + 2 * 8 * 6 * 10 * 10 * 4


def test_no_model_s_file_decides_for_the_hardware():
    for file in [*shipped_configs().glob("models/*.gin"), *shipped_configs().glob("quant*/*.gin")]:
        text = file.read_text()
        assert not any(f".{name} =" in text for name in ("param_dtype", "compute_dtype")), file
        assert not any(f".{name} =" in text for name in ("remat", "unroll")), file
