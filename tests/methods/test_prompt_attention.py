"""Who attends to whom in the encoder: the masks of the paper's code, and what they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import TINY_FAMILIES

from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.decoder_only import DecoderOnly
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.injection import Injection, add_prompt, encoder_sight
from prompt_tuning.models.stacking import batch_injections, with_prompt_length

LENGTH = 3
NUMBERS = np.random.default_rng(0)
TOKENS = NUMBERS.integers(2, 20, (2, 6), np.int32)
TOKENS[1, 4:] = 0
COMBINATIONS = [
    (),
    ("input->prompt",),
    ("input->prompt", "prompt->input"),
    ("input->prompt", "prompt->prompt"),
    ("input->prompt", "prompt->prompt;causal"),
    ("prompt->input", "prompt->prompt", "prompt->prompt;causal"),
]


def injection_of(*attention, length=LENGTH, seed=0):
    method = SoftPrompt(length=length, embed_dim=12, attention=attention)
    return method.apply(method.init(jax.random.key(seed), {}), {})


def sees(attention, query, key, length=LENGTH):
    """Position by position."""
    if query >= length or key >= length:
        kinds = ["prompt" if place < length else "input" for place in (query, key)]
        return kinds == ["input", "input"] or "->".join(kinds) in attention
    if "prompt->prompt;causal" in attention:  # preferred to the one that isn't
        return key <= query
    return key == query or "prompt->prompt" in attention


@pytest.mark.parametrize("attention", COMBINATIONS)
def test_each_position_sees_what_is_allowed(attention):
    mask = np.pad(TOKENS != 0, ((0, 0), (LENGTH, 0)), constant_values=True)
    found = encoder_sight(jnp.asarray(mask), injection_of(*attention))
    for row in range(2):
        for query in range(mask.shape[1]):
            expected = [sees(attention, query, key) and mask[row, key] for key in range(9)]
            assert found[row, query].tolist() == expected


def test_without_restrictions_there_is_one_mask_for_all_queries():
    mask = jnp.ones((2, 9), bool)
    injection = injection_of("prompt->prompt", "input->prompt", "prompt->input")
    assert injection.encoder_prompt_attention is None
    assert encoder_sight(mask, injection).shape == (2, 1, 9)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name == "t5" else pytest.mark.slow)
        for name in ("t5", "t5gemma")
    ],
)
def test_what_a_position_does_not_see_does_not_change_it(family):
    model = model_of(TINY_FAMILIES[family])
    params = init_params(model.config, jax.random.key(0))

    @jax.jit
    def encoded(injection, tokens):
        return model.apply({"params": params}, tokens, injection, method="encode").outputs

    others = np.where(TOKENS == 0, 0, (TOKENS + 5) % 18 + 2)
    for attention, constant in ((COMBINATIONS[3], True), (COMBINATIONS[2], False)):
        injection = injection_of(*attention)
        one, two = (encoded(injection, tokens)[:, :LENGTH] for tokens in (TOKENS, others))
        assert np.allclose(one, two, atol=1e-6) == constant
    # An input that doesn't see the prompt is encoded as without one.
    bare = np.asarray(encoded(Injection(), TOKENS))
    blind = np.asarray(encoded(injection_of("prompt->input"), TOKENS))[:, LENGTH:]
    np.testing.assert_allclose(blind[0], bare[0], atol=1e-5)  # positions are relative


def test_restricted_prompts_share_a_batch_with_others():
    injections = [
        injection_of("input->prompt", "prompt->prompt;causal"),
        injection_of("input->prompt", "prompt->input", "prompt->prompt", length=5, seed=1),
    ]
    embedded, mask = jnp.zeros((*TOKENS.shape, 12)), jnp.asarray(TOKENS != 0)

    def sight(injection):
        _, extended = add_prompt(embedded, mask, injection)
        return np.asarray(encoder_sight(extended, injection))

    padded = [with_prompt_length(injection, 5) for injection in injections]
    for together in (injections, padded):
        found = sight(batch_injections(together))
        assert not found[0, :, :2].any()  # the shorter prompt's padding
        np.testing.assert_array_equal(found[0, 2:, 2:], sight(injections[0])[0])
        np.testing.assert_array_equal(found[1], np.repeat(sight(injections[1])[1], 11, axis=0))


def test_a_model_without_an_encoder_refuses_them():
    stack = TINY_FAMILIES["t5gemma"].decoder
    config = DecoderOnlyConfig(
        name="tiny", vocab_size=32, embed_dim=12, kind="llama", decoder=stack
    )
    batch = {"encoder_input_tokens": jnp.asarray(TOKENS)}
    with pytest.raises(UserError, match="no encoder, whose attention a prompt could restrict"):
        DecoderOnly(config).init(jax.random.key(0), batch, injection_of())
