"""What a compiled step needs, against what can be worked out by hand."""

import dataclasses

import pytest

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import MODELS, T5Config, get_config
from prompt_tuning.planning import program
from prompt_tuning.planning.compilers import DoesNotFit
from prompt_tuning.planning.program import needs_of, weights_on_device


def with_model(work, name: str, *, data: int = 1, model: int = 1, fsdp=False, dtype="bfloat16"):
    return dataclasses.replace(
        work,
        config=get_config(name),
        compute=Compute(param_dtype=dtype),
        data_parallel=data,
        model_parallel=model,
        fsdp=fsdp,
    )


def parameters(c: T5Config) -> tuple[int, int]:
    """The parameters of a T5 1.1: those of matrices, and those of norms."""
    inner = c.num_heads * c.head_dim
    attention, mlp = 4 * c.embed_dim * inner, 3 * c.embed_dim * c.mlp_dim
    layers = c.num_encoder_layers * (attention + mlp) + c.num_decoder_layers * (2 * attention + mlp)
    tables = 2 * c.vocab_size * c.embed_dim + 2 * c.num_heads * c.relative_attention_num_buckets
    norms = c.embed_dim * (2 * c.num_encoder_layers + 3 * c.num_decoder_layers + 2)
    return layers + tables, norms


@pytest.mark.parametrize("name", ["t5_1_1_small", "t5_1_1_xxl"])
def test_weights_of_one_device_are_all_of_them(work, name):
    matrices, norms = parameters(MODELS[name])
    assert weights_on_device(with_model(work, name)) == 2 * (matrices + norms)
    assert weights_on_device(with_model(work, name, dtype="float32")) == 4 * (matrices + norms)


def test_weights_of_xxl_over_eight_devices(work):
    matrices, norms = parameters(MODELS["t5_1_1_xxl"])
    assert matrices + norms == 11_135_332_352
    # Norms are whole on every device; everything else is split.
    assert weights_on_device(with_model(work, "t5_1_1_xxl", model=8)) == 2 * (matrices / 8 + norms)
    assert weights_on_device(with_model(work, "t5_1_1_xxl", data=4, model=8)) == 2 * (
        matrices / 8 + norms
    )


def test_fsdp_splits_weights_over_the_data_axis_too(work):
    matrices, norms = parameters(MODELS["t5_1_1_xxl"])
    biases = 2 * 64 * 32  # relative positions have no axis that FSDP splits
    expected = (matrices - biases) / 32 + biases / 8 + norms
    split = with_model(work, "t5_1_1_xxl", data=4, model=8, fsdp=True)
    assert weights_on_device(split) == 2 * expected


def test_a_device_holds_what_the_program_is_given(work, needs):
    assert needs.weights == needs.all_weights == 2 * sum(parameters(work.config))
    # The step, the prompt [5, 16], Adafactor's count and its squares of the prompt, not factored.
    assert 2 * 5 * 16 * 4 <= needs.state <= 2 * 5 * 16 * 4 + 64
    assert needs.batch == 4 * 4 * (20 + 3 * 6)
    assert needs.memory == needs.weights + needs.state + needs.batch + needs.temporaries
    assert needs.analysis.memory == needs.memory


def test_layers_that_are_not_recomputed_keep_more(needs, keeping_needs):
    assert keeping_needs.temporaries > needs.temporaries
    assert keeping_needs.analysis.flops < needs.analysis.flops


def test_flops_are_about_the_fewest(work, needs):
    fewest = step_flops(
        work.config, batch=4, prompt=5, source=20, target=6, remat=work.compute.remat
    ).total
    # At this size of model the first layers, of which only a part is needed, weigh a lot.
    assert fewest <= needs.analysis.flops <= 1.25 * fewest
    assert needs.traffic == () and needs.compiler == "cpu"


def test_what_the_compiler_refuses_is_what_it_needs(work, needs, monkeypatch):
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (41.25G) exceeds available HBM (15.75G)."
    )

    def refuse(lowered):
        raise DoesNotFit(message)

    monkeypatch.setattr(program, "compiled", refuse)
    refused = needs_of(work)
    assert refused.temporaries == int(41.25 * 2**30)
    assert refused.memory == refused.temporaries + needs.weights + needs.state + needs.batch
    assert refused.analysis is None and "(41.25G) exceeds" in refused.refusal


def test_a_batch_that_cannot_be_shared_out(work):
    with pytest.raises(UserError, match="4 examples can't be cut into 3 equal"):
        needs_of(dataclasses.replace(work, batch_size=4, accumulation_steps=3))
