"""XLA's count of each program's FLOPs against the fewest that the mathematics allows.

Programs are lowered on shapes alone, no weights and no compilation. XLA counts a loop's body once
however often it runs: so layers are unrolled, and a step that accumulates over n microbatches,
which is a loop over a step's work for one, counts n times.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from prompt_tuning.analysis.flops import (
    cross_key_value_flops,
    decoder_flops,
    encoder_flops,
    step_flops,
)
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.attention import KeyValue
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.encoder_decoder import Cache, Encoded
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

LENGTHS = {"prompt": 100, "source": 128, "target": 8}
SMALL = T5Config(
    name="little",
    vocab_size=512,
    embed_dim=128,
    num_heads=4,
    head_dim=32,
    mlp_dim=256,
    num_encoder_layers=2,
    num_decoder_layers=3,
)
UNROLLED = Compute(unroll=0)


def tokens(rows, length):
    return jax.ShapeDtypeStruct((rows, length), jnp.int32)


def counted_step_flops(config, *, batch, prompt, source, target, accumulation=1, remat=False):
    method = SoftPrompt(length=prompt, embed_dim=config.embed_dim)
    optimizer = adafactor(0.3)
    model = model_of(config, Compute(unroll=0, remat=remat))
    step = make_train_step(prompt_loss_fn(model, method, LossOptions()), optimizer, accumulation)
    arrays = {
        "encoder_input_tokens": tokens(batch, source),
        "decoder_input_tokens": tokens(batch, target),
        "decoder_target_tokens": tokens(batch, target),
        "decoder_loss_weights": jax.ShapeDtypeStruct((batch, target), jnp.float32),
    }
    state = jax.eval_shape(
        lambda key, batch: TrainState.create(method.init(key, batch), optimizer),
        jax.random.key(0),
        arrays,
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = step.lower(state, abstract_params(config), arrays, key)
    return accumulation * lowered.cost_analysis()["flops"]


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
def test_the_forward_formula_is_exact(gated_mlp):
    config = dataclasses.replace(SMALL, gated_mlp=gated_mlp)
    batch = {"encoder_input_tokens": tokens(2, 30), "decoder_input_tokens": tokens(2, 5)}

    def logits(params, batch, prompt):
        return T5(config, UNROLLED).apply(
            {"params": params}, batch, Injection(encoder_prompt=prompt)
        )

    prompt = jax.ShapeDtypeStruct((1, 10, config.embed_dim), jnp.float32)
    program = jax.make_jaxpr(logits)(abstract_params(config), batch, prompt)
    # The position biases are products with one-hot vectors of the 32 buckets.
    biases = 2 * config.num_heads * 32 * (40**2 + 5**2)
    found = product_flops(program.jaxpr) - biases
    assert found == step_flops(config, batch=2, prompt=10, source=30, target=5).forward


def test_the_minimum_for_the_papers_small_model():
    """Worked by hand: 8 encoder layers of 9.246, 8 decoder layers of 0.583, logits of 2.106."""
    flops = step_flops(get_config("t5_1_1_small"), batch=8, **LENGTHS)
    assert flops.forward == pytest.approx((8 * 9.246 + 8 * 0.583 + 2.106) * 1e9, rel=1e-3)
    # Backward as much again, attention's products twice, and nothing where no prompt comes from.
    assert 1.0 < flops.backward / flops.forward < 1.06
    assert flops.total == flops.forward + flops.backward


SIZES = [*(f"t5_1_1_{size}" for size in ("small", "base", "large", "xl", "xxl"))]
SIZES += ["t5gemma_b_b", "t5gemma_9b_2b", "t5gemma2_270m_270m"]


@pytest.mark.parametrize("name", SIZES)
def test_a_step_computes_next_to_nothing_beyond_the_minimum(name):
    """A gradient of the frozen weights would make it half as much again."""
    config = get_config(name)
    counted = counted_step_flops(config, batch=8, **LENGTHS)
    minimum = step_flops(config, batch=8, **LENGTHS)
    assert 1.0 < counted / minimum.total < 1.03


@pytest.mark.parametrize("name", SIZES)
def test_nor_with_accumulation_and_recomputation(name):
    config = get_config(name)
    counted = counted_step_flops(config, batch=8, accumulation=4, remat=True, **LENGTHS)
    minimum = step_flops(config, batch=8, remat=True, **LENGTHS)
    assert 0.4 < minimum.recomputed / minimum.forward < 1
    # Within 1 % below: the first layers' recomputation can leave a little more out.
    assert 0.99 < counted / minimum.total < 1.03


@pytest.mark.parametrize("remat", [False, True])
def test_a_decoder_only_step(remat):
    """Beyond the minimum, it computes the prefill of the last layer to its end."""
    config = get_config("llama3_2_1b")
    counted = counted_step_flops(config, batch=8, remat=remat, **LENGTHS)
    minimum = step_flops(config, batch=8, remat=remat, **LENGTHS)
    assert 1.0 < counted / minimum.total < 1.01 + 1 / config.num_decoder_layers


def rank_flops(config, labels):
    """What XLA counts for rank classification of 4 examples with so many labels of 3 tokens."""
    lowered = jax.jit(
        lambda frozen, inputs, injection, ids: label_log_likelihoods(
            T5(config, UNROLLED), frozen, inputs, injection, ids
        )
    ).lower(abstract_params(config), tokens(4, 40), Injection(), tokens(labels, 3))
    return lowered.cost_analysis()["flops"]


def test_one_more_label_costs_the_decoders_work_alone():
    more = rank_flops(SMALL, 10) - rank_flops(SMALL, 6)
    decoder = decoder_flops(SMALL, rows=4 * 4, target=3, source=40)
    # The softmax over the vocabulary is elementwise work, which XLA counts too.
    assert 1.0 <= more / decoder < 1.05
    rest = encoder_flops(SMALL, batch=4, source=40)
    rest += cross_key_value_flops(SMALL, batch=4, source=40)
    assert more < 0.5 * rest


def test_a_step_of_decoding_computes_neither_encoder_nor_its_keys_and_values():
    model, params = T5(SMALL, UNROLLED), {"params": abstract_params(SMALL)}

    def step(params, outputs, mask, own, cross, last, position):
        encoded = Encoded(outputs=outputs, mask=mask)
        cache = Cache(self_kv=KeyValue(**own), cross_kv=KeyValue(**cross))
        return jax.tree.leaves(
            model.apply(params, encoded, last, cache, position, method=T5.decode_step)
        )

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    outputs, mask = floats(4, 40, 128), jax.ShapeDtypeStruct((4, 40), bool)
    own, cross = ({"key": x, "value": x} for x in (floats(3, 4, 4, 8, 32), floats(3, 4, 4, 40, 32)))
    last, position = jax.ShapeDtypeStruct((4,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    lowered = jax.jit(step).lower(params, outputs, mask, own, cross, last, position)
    counted = lowered.cost_analysis()["flops"]
    minimum = decoder_flops(SMALL, rows=4, target=1, source=40, keys=8)
    assert 1.0 <= counted / minimum < 1.1
    assert counted < 0.5 * cross_key_value_flops(SMALL, batch=4, source=40)

    # Before the loop each of them is computed once.
    def start(params, inputs):
        encoded = model.apply(params, inputs, method=T5.encode)
        cache = model.apply(params, encoded, 4, 8, method=T5.start_cache)
        return jax.tree.leaves((encoded, cache))

    before = jax.jit(start).lower(params, tokens(4, 40)).cost_analysis()["flops"]
    whole = encoder_flops(SMALL, batch=4, source=40)
    whole += cross_key_value_flops(SMALL, batch=4, source=40)
    assert 1.0 <= before / whole < 1.1
