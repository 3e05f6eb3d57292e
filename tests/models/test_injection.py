"""Every slot of an injection: in teacher forcing and in cached decoding, shared and mixed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import TINY, TINY_FAMILIES

from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.injection import (
    Bottleneck,
    GatedPrompt,
    Injection,
    KeyValue,
    LowRank,
    add_prompt,
    injected,
)
from prompt_tuning.models.stacking import batch_injections, stack_injections
from prompt_tuning.models.targets import (
    attention_blocks,
    blocks,
    gated_blocks,
    projections,
    scalable,
)

MODELS = {name: model_of(config) for name, config in TINY_FAMILIES.items()}
LABELS = np.array([[5, 1, 0], [6, 7, 1]], np.int32)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == "t5" else pytest.mark.slow) for name in MODELS],
)
def model(request):
    """A tiny model of each family."""
    return MODELS[request.param]


@pytest.fixture(scope="module")
def frozen(model):
    return init_params(model.config, jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(0)
    inputs = numbers.integers(2, 32, (4, 7), np.int32)
    inputs[0, 4:] = 0
    inputs[3, 6:] = 0
    targets = numbers.integers(2, 32, (4, 5), np.int32)
    decoder_inputs = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return {"encoder_input_tokens": inputs, "decoder_input_tokens": decoder_inputs}


def random(numbers, *shape):
    return jnp.asarray(0.5 * numbers.normal(size=shape), jnp.float32)


def prompts(config, seed: int, length: int) -> Injection:
    draw = functools.partial(random, np.random.default_rng(seed))
    embed = config.embed_dim
    return Injection(
        encoder_prompt=draw(1, length, embed),
        encoder_update=draw(1, 3 * length, embed),  # shorter than the inputs, or longer
        encoder_suffix=draw(1, length + 1, embed),
        decoder_prompt=None
        if isinstance(config, DecoderOnlyConfig)
        else draw(1, length + 2, embed),
    )


def of_layers(config, seed: int, size: int) -> Injection:
    """Fills every slot of every layer; `size` is the prefixes' length and the ranks."""
    draw = functools.partial(random, np.random.default_rng(seed))
    return Injection(
        prefixes={
            each.name: KeyValue(
                key=draw(each.layers, 1, heads, size, head_dim),
                value=draw(each.layers, 1, heads, size, head_dim),
            )
            for each in attention_blocks(config)
            for heads, head_dim in [each.outputs]
        },
        gated_prompts={
            each.name: GatedPrompt(
                prompt=draw(each.layers, 1, size, *each.inputs),
                gate=draw(each.layers, 1, *each.outputs),
            )
            for each in gated_blocks(config)
        },
        low_rank={
            each.name: LowRank(
                down=draw(each.layers, 1, *each.inputs, size),
                up=draw(each.layers, 1, size, *each.outputs),
                magnitude=draw(each.layers, 1, *each.outputs) if with_magnitude else None,
            )
            for each in projections(config)
            for with_magnitude in [each.name.endswith(("query", "out", "wo"))]
        },
        scales={each.name: draw(each.layers, 1, *each.outputs) for each in scalable(config)},
        bottlenecks={
            each.name: Bottleneck(
                down=draw(each.layers, 1, *each.inputs, size),
                down_bias=draw(each.layers, 1, size),
                up=draw(each.layers, 1, size, *each.outputs),
                up_bias=draw(each.layers, 1, *each.outputs),
            )
            for each in blocks(config)
        },
    )


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, frozen, batch, injection):
    return model.apply({"params": frozen}, batch, injection)


@pytest.fixture(scope="module", params=[prompts, of_layers], ids=["prompts", "of layers"])
def two(request, model):
    """Two injections of the same slots in different sizes."""
    return request.param(model.config, 1, 2), request.param(model.config, 2, 3)


def rows(batch, some):
    return {name: tokens[some] for name, tokens in batch.items()}


@pytest.fixture(scope="module")
def mixed(two):
    """The first two examples with one, the last two with the other."""
    return batch_injections([two[0], two[0], two[1], two[1]])


def test_a_mixed_batch_is_each_alone(model, frozen, batch, two, mixed):
    alone = [
        logits_of(model, frozen, rows(batch, some), injection)
        for some, injection in zip((slice(2), slice(2, 4)), two, strict=True)
    ]
    assert alone[0].shape == (2, 5, 32), "nothing is returned for the decoder's prompt"
    found = logits_of(model, frozen, batch, mixed)
    np.testing.assert_allclose(found, np.concatenate(alone), atol=1e-5)
    assert np.abs(found - logits_of(model, frozen, batch, Injection())).max() > 0.1


def test_cached_decoding_is_teacher_forcing(model, frozen, batch, mixed):
    tokens = batch["encoder_input_tokens"]
    options = DecodingOptions(max_length=5)
    found = np.asarray(generate(model, frozen, tokens, mixed, options))
    inputs = {**batch, "decoder_input_tokens": np.pad(found, ((0, 0), (1, 0)))[:, :-1]}
    forced = np.argmax(logits_of(model, frozen, inputs, mixed), axis=-1)
    ended = np.cumsum(found == model.config.eos_id, axis=1) - (found == model.config.eos_id) > 0
    np.testing.assert_array_equal(found[~ended], forced[~ended])


@pytest.mark.slow
def test_beams_and_labels_share_an_example_s_injection(model, frozen, batch, two, mixed):
    tokens = batch["encoder_input_tokens"]
    options = DecodingOptions(max_length=4, method="beam", beam_size=2)
    scores = functools.partial(label_log_likelihoods, model)
    beams = generate(model, frozen, tokens, mixed, options)
    for some, injection in zip((slice(2), slice(2, 4)), two, strict=True):
        alone = generate(model, frozen, tokens[some], injection, options)
        np.testing.assert_array_equal(beams[some], alone)
        np.testing.assert_allclose(
            jax.jit(scores)(frozen, tokens, mixed, LABELS)[some],
            jax.jit(scores)(frozen, tokens[some], injection, LABELS),
            atol=1e-5,
        )


def test_stacked_injections_are_mapped_over(model, frozen, batch, two):
    arrays, injection_of = stack_injections(two)
    found = jax.vmap(lambda arrays: logits_of(model, frozen, batch, injection_of(arrays)))(arrays)
    for logits, injection in zip(found, two, strict=True):
        np.testing.assert_allclose(logits, logits_of(model, frozen, batch, injection), atol=1e-5)


def test_a_suffix_follows_the_last_token(batch):
    embedded = jnp.asarray(batch["encoder_input_tokens"])[..., None] * jnp.ones(12)
    mask = batch["encoder_input_tokens"] != 0
    marks = Injection(
        encoder_prompt=jnp.full((1, 1, 12), 100.0), encoder_suffix=jnp.full((1, 2, 12), 200.0)
    )
    found, visible = add_prompt(embedded, jnp.asarray(mask), marks)
    first = np.asarray(found[0, :, 0])
    np.testing.assert_array_equal(first, [100, *embedded[0, :4, 0], 200, 200, 0, 0, 0])
    np.testing.assert_array_equal(visible[0], [True] * 7 + [False] * 3)


def test_weights_stand_in_for_the_frozen_ones(model, frozen, batch):
    name = "decoder/decoder_norm/scale"
    scale = frozen["decoder"]["decoder_norm"]["scale"] + 1
    injection = Injection(weights={name: 2 * scale})
    params = injected(frozen, injection)[0]["params"]
    assert np.array_equal(params["decoder"]["decoder_norm"]["scale"], 2 * scale)
    assert params["token_embedder"] == frozen["token_embedder"]
    scores = functools.partial(label_log_likelihoods, model)
    tokens = batch["encoder_input_tokens"]
    np.testing.assert_array_equal(
        jax.jit(scores)(frozen, tokens, injection, LABELS),
        jax.jit(scores)(params, tokens, Injection(), LABELS),
    )
    with pytest.raises(ValueError, match="no parameters named"):
        injected(frozen, Injection(weights={"encoder/scale": scale}))
    with pytest.raises(ValueError, match="has shape"):
        injected(frozen, Injection(weights={name: scale[:3]}))
    with pytest.raises(ValueError, match="injected"):  # not the frozen model's own answers
        model.apply({"params": frozen}, jax.tree.map(jnp.asarray, batch), injection)


def test_what_cannot_share_a_batch(two):
    with pytest.raises(ValueError, match="can't be stacked"):
        stack_injections([two[0], Injection()])
    weights = dataclasses.replace(two[0], weights={"a": jnp.ones(1)})
    with pytest.raises(ValueError, match="their own weights"):
        batch_injections([weights, weights])
    both = dataclasses.replace(of_layers(TINY, 0, 2), encoder_prompt=jnp.ones((1, 2, 12)))
    longer = dataclasses.replace(both, encoder_prompt=jnp.ones((1, 3, 12)))
    with pytest.raises(ValueError, match="come between the two"):
        stack_injections([both, longer])


def test_a_model_without_encoder_has_no_decoder_s_prompt(batch):
    model = MODELS["qwen2"]
    frozen = init_params(model.config, jax.random.key(0))
    with pytest.raises(UserError, match="expected a prompt before, after or around the input"):
        logits_of(model, frozen, batch, Injection(decoder_prompt=jnp.ones((1, 2, 12))))


@pytest.mark.parametrize("size", [None, 3])
def test_flash_attention_is_plain_attention(model, frozen, batch, size):
    config = model.config
    if not isinstance(config, T5Config):
        pytest.skip("the kernels have T5's position bias, and no soft caps and windows")
    injection = prompts(config, 1, 2) if size is None else of_layers(config, 1, size)
    flash = model_of(config, Compute(attention="flash"))

    def with_gradient(model):
        @jax.jit
        def loss(injection, frozen, batch):
            logits = model.apply({"params": frozen}, batch, injection)
            return jax.nn.logsumexp(logits, axis=-1).sum()

        return jax.value_and_grad(loss)(injection, frozen, batch)

    program = jax.make_jaxpr(jax.jit(flash.apply))({"params": frozen}, batch, injection)
    assert "flash_attention" in str(program)
    found, expected = (jax.tree.leaves(with_gradient(model)) for model in (flash, model))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
