"""Cached decoding against the plain forward pass, beam search against every sequence there is."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import SMALL

from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.sampling import restrict
from prompt_tuning.models.t5 import T5

VOCAB = 7
CONFIG = dataclasses.replace(SMALL, vocab_size=VOCAB, num_encoder_layers=1)
MODEL = T5(CONFIG)


@pytest.fixture(scope="module")
def frozen():
    return init_params(CONFIG, jax.random.key(3))


@pytest.fixture(scope="module")
def inputs():
    tokens = np.random.default_rng(0).integers(2, VOCAB, (6, 8)).astype(np.int32)
    tokens[::2, 5:] = 0
    return jnp.asarray(tokens)


@pytest.fixture(scope="module")
def injection():
    prompt = jax.random.normal(jax.random.key(1), (1, 3, CONFIG.embed_dim))
    return Injection(encoder_prompt=prompt)


@functools.partial(jax.jit, static_argnames=())
def _log_probabilities(frozen, inputs, injection, targets):
    """Log-probability of every next token, by the forward pass of teacher forcing."""
    shifted = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": shifted}
    return jax.nn.log_softmax(MODEL.apply({"params": frozen}, batch, injection))


def test_greedy_takes_the_likeliest_token_of_the_forward_pass(frozen, inputs, injection):
    tokens = generate(MODEL, frozen, inputs, injection, DecodingOptions(max_length=6))
    best = _log_probabilities(frozen, inputs, injection, tokens).argmax(-1)
    ended = np.cumsum(tokens == CONFIG.eos_id, axis=1) - (tokens == CONFIG.eos_id) > 0
    np.testing.assert_array_equal(tokens, np.where(ended, 0, best))


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_unrolled_layers_decode_the_same_and_are_held_apart(frozen, inputs, injection, method):
    options = DecodingOptions(max_length=6, method=method, beam_size=3)
    stacked = f"f32[2,{CONFIG.embed_dim},{CONFIG.mlp_dim}]"
    found = []
    for unroll in (0, 1):
        model = T5(CONFIG, Compute(unroll=unroll))

        @jax.jit
        def decode(frozen, inputs, prompt, key, model=model):
            injection = Injection(encoder_prompt=prompt)
            return generate(model, frozen, inputs, injection, options, key)

        arguments = (frozen, inputs, injection.encoder_prompt, jax.random.key(2))
        program = decode.lower(*arguments).compile()
        found.append(program(*arguments))
        loops = [line for line in program.as_text().splitlines() if " while(" in line]
        assert any(stacked in loop for loop in loops) == bool(unroll)
    np.testing.assert_array_equal(*found)


def test_rows_of_padding_yield_padding_and_leave_the_others(frozen, inputs, injection):
    options = DecodingOptions(max_length=6)
    tokens = generate(MODEL, frozen, inputs, injection, options)
    padded = jnp.pad(inputs, ((0, 2), (0, 0)))
    padded = generate(MODEL, frozen, padded, injection, options)
    np.testing.assert_array_equal(padded[:6], tokens)
    assert not padded[6:].any()


@pytest.mark.parametrize("length_penalty", [0.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(frozen, inputs, injection, length_penalty):
    length, inputs = 3, inputs[:2]
    options = DecodingOptions(
        max_length=length, method="beam", beam_size=60, length_penalty=length_penalty
    )
    found = generate(MODEL, frozen, inputs, injection, options)
    sequences = set()
    for tokens in itertools.product(range(VOCAB), repeat=length):
        end = tokens.index(CONFIG.eos_id) + 1 if CONFIG.eos_id in tokens else length
        sequences.add((tokens[:end] + (0,) * (length - end), end))
    everything = jnp.asarray([tokens for tokens, _ in sequences])
    ends = np.asarray([end for _, end in sequences])
    for row in range(2):
        source = jnp.tile(inputs[row], (len(everything), 1))
        chosen = np.take_along_axis(
            np.asarray(_log_probabilities(frozen, source, injection, everything)),
            np.asarray(everything)[:, :, None],
            axis=2,
        )[:, :, 0]
        scores = np.where(np.arange(length) < ends[:, None], chosen, 0).sum(axis=1)
        scores /= ((5 + ends) / 6) ** length_penalty
        np.testing.assert_array_equal(found[row], everything[scores.argmax()])


def test_sampling_follows_the_distribution(frozen, inputs, injection):
    draws = 4000
    source = jnp.tile(inputs[:1], (draws, 1))
    options = DecodingOptions(max_length=1, method="sample", temperature=0.7)
    tokens = generate(MODEL, frozen, source, injection, options, jax.random.key(0))
    nothing = jnp.zeros((1, 1), jnp.int32)
    logits = _log_probabilities(frozen, inputs[:1], injection, nothing)[0, 0]
    expected = jax.nn.softmax(logits / 0.7)
    frequencies = jnp.bincount(tokens[:, 0], length=VOCAB) / draws
    # Five standard deviations of a frequency out of 4000 are at most 0.04.
    np.testing.assert_allclose(frequencies, expected, atol=0.04)


def test_sampling_depends_on_the_key_alone(frozen, inputs, injection):
    options = DecodingOptions(max_length=6, method="sample", temperature=2.0)
    sample = functools.partial(generate, MODEL, frozen, inputs, injection, options)
    np.testing.assert_array_equal(sample(jax.random.key(0)), sample(jax.random.key(0)))
    assert not jnp.array_equal(sample(jax.random.key(0)), sample(jax.random.key(1)))


def test_sampling_from_the_one_likeliest_token_is_greedy(frozen, inputs, injection):
    greedy = generate(MODEL, frozen, inputs, injection, DecodingOptions(max_length=6))
    options = DecodingOptions(max_length=6, method="sample", top_k=1)
    drawn = generate(MODEL, frozen, inputs, injection, options, jax.random.key(0))
    np.testing.assert_array_equal(drawn, greedy)


def test_sampling_without_a_key_is_an_error(frozen, inputs):
    with pytest.raises(ValueError, match="key"):
        generate(MODEL, frozen, inputs, options=DecodingOptions(max_length=2, method="sample"))


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [(0, 1.0, 4), (2, 1.0, 2), (9, 1.0, 4), (0, 0.49, 1), (0, 0.51, 2), (0, 0.81, 3), (2, 0.7, 2)],
)
def test_restricting_a_distribution(top_k, top_p, kept):
    probabilities = jnp.asarray([[0.1, 0.5, 0.1, 0.3]]) + jnp.asarray([[0.0, 0.0, 1e-6, 0.0]])
    logits = restrict(jnp.log(probabilities), temperature=1.0, top_k=top_k, top_p=top_p)
    assert int(jnp.isfinite(logits).sum()) == kept
    ranked = jnp.asarray([1, 3, 2, 0])[:kept]
    assert jnp.isfinite(logits[0, ranked]).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_length": 0},
        {"method": "best"},
        {"beam_size": 0},
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
    ids=str,
)
def test_bad_options_are_told(fields):
    (name,) = fields
    with pytest.raises(UserError, match=name):
        DecodingOptions(**fields)
