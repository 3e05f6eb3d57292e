"""A merged model computes what the frozen one does with what was injected."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import TINY as GATED
from small_configs import TINY_FAMILIES

from prompt_tuning.checkpoints.frozen.weights import unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.methods.adapter import BottleneckAdapter
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.families import model_of
from prompt_tuning.models.injection import Injection, LowRank
from prompt_tuning.models.merging import merge_injection
from prompt_tuning.models.parameters import parameter_shapes
from prompt_tuning.models.targets import attention_blocks, blocks, projections, scalable

CONFIGS = {"v1.1": GATED, "v1.0": dataclasses.replace(GATED, gated_mlp=False, tie_embeddings=True)}
CONFIGS["T5Gemma"] = TINY_FAMILIES["t5gemma"]
CONFIGS["Qwen 2"] = TINY_FAMILIES["qwen2"]


merge = jax.jit(merge_injection)  # one program in place of a hundred


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(0)
    inputs = numbers.integers(2, 24, (4, 6), np.int32)
    inputs[1, 4:] = 0
    targets = numbers.integers(2, 24, (4, 4), np.int32)
    return {"encoder_input_tokens": inputs, "decoder_input_tokens": targets}


def random_params(config, dtype="float32"):
    numbers = np.random.default_rng(0)
    return unflatten(
        {
            name: jnp.asarray(0.3 * numbers.normal(size=shape), dtype)
            for name, shape in parameter_shapes(config).items()
        }
    )


def drawn(method, scale):
    numbers = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(numbers.normal(scale=scale, size=leaf.shape), jnp.float32),
        method.init(jax.random.key(0), {}),
    )


def everything(config, params) -> Injection:
    """Low ranks of all projections, factors of all modules, and weights of the norms."""
    in_turn = (projections(config)[::2], projections(config)[1::2])
    of_ranks = [
        kind(targets=targets, rank=2, alpha=3.0)
        for kind, targets in zip((LoRA, DoRA), in_turn, strict=True)
    ]
    ia3 = IA3(targets=scalable(config))
    low_rank = {}
    for method in of_ranks:
        low_rank |= method.apply(drawn(method, 0.2), {}).low_rank
    scales = ia3.apply(drawn(ia3, 0.3), {}).scales
    norm = 1.5 * params["decoder"]["decoder_norm"]["scale"].astype(jnp.float32)
    weights = {"decoder/decoder_norm/scale": norm}
    return Injection(low_rank=low_rank, scales=scales, weights=weights)


def logits_of(config, params, batch, injection=Injection()):
    forward = jax.jit(model_of(config).apply)
    return np.asarray(forward({"params": params}, batch, injection), np.float32)


def test_merged_is_unmerged(config, batch):
    frozen = random_params(config)
    before = [np.array(leaf) for leaf in jax.tree.leaves(frozen)]
    injection = everything(config, frozen)
    merged = merge(frozen, injection)
    assert jax.tree.structure(merged) == jax.tree.structure(frozen)
    norms = merge(frozen, dataclasses.replace(injection, low_rank={}, scales={}))
    rest = dataclasses.replace(injection, weights={})
    expected = logits_of(config, norms, batch, rest)
    np.testing.assert_allclose(logits_of(config, merged, batch), expected, atol=1e-5, rtol=1e-5)
    assert np.abs(expected - logits_of(config, frozen, batch)).max() > 0.1
    for leaf, old in zip(jax.tree.leaves(frozen), before, strict=True):
        np.testing.assert_array_equal(leaf, old)


@pytest.mark.slow
def test_bfloat16_weights_stay_so(batch):
    frozen = random_params(GATED, "bfloat16")
    injection = everything(GATED, frozen)
    merged = merge(frozen, injection)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), frozen)
    expected = logits_of(GATED, merge(wide, injection), batch)
    found = logits_of(GATED, merged, batch)
    # Eight bits of every weight, in three layers.
    assert np.abs(found - expected).max() < 0.05 * expected.std() + 0.05


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (SoftPrompt(length=2, embed_dim=12), "encoder prompt"),
        (DeepPrompt(length=2, targets=attention_blocks(GATED)), "prefixes"),
        (BottleneckAdapter(targets=blocks(GATED), width=2), "bottlenecks"),
    ],
)
def test_what_can_not_be_merged_is_told(method, told):
    injection = method.apply(method.init(jax.random.key(0), {}), {})
    with pytest.raises(UserError, match=f"have {told}, which can't be merged") as caught:
        merge_injection({}, injection)
    assert "\n" not in str(caught.value)


def test_numbers_of_several_examples_can_not_be_merged():
    frozen = random_params(GATED)
    injection = everything(GATED, frozen)
    two = {name: jnp.concatenate([each, each], axis=1) for name, each in injection.scales.items()}
    with pytest.raises(UserError, match="for 2 examples"):
        merge_injection(frozen, Injection(scales=two))
    wrong = {
        "encoder/attention/query": LowRank(down=jnp.ones((1, 1, 12, 1)), up=jnp.ones((1,) * 5))
    }
    with pytest.raises(ValueError, match=r"shape \(1, 12, 1, 1\); the model's has \(1, 12, 2, 5\)"):
        merge_injection(frozen, Injection(low_rank=wrong))
