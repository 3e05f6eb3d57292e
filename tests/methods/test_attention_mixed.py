"""How prompts are mixed: the equations, padding, and where the sources come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import bind
from prompt_tuning.methods.initializers import from_array
from prompt_tuning.models.injection import Injection, PromptMixture, add_prompt
from prompt_tuning.models.stacking import batch_injections

EMBED, LENGTH, WIDTH = 6, 4, 3
NUMBERS = np.random.default_rng(0)
SOURCES = NUMBERS.normal(size=(2, LENGTH, EMBED)).astype(np.float32)


METHOD = AttentionMixedPrompt(
    length=LENGTH,
    embed_dim=EMBED,
    sources=2,
    width=WIDTH,
    temperature=2.0,
    source_initializer=from_array(SOURCES),
)


def attention():
    return bind(METHOD, METHOD.init(jax.random.key(0), {}))


def by_hand(params, embedded):
    """The paper's section 3.2 for one input without padding, a line an equation."""
    params, embedded = jax.tree.map(np.asarray, (params, embedded))
    pooled = embedded.max(axis=0)
    down = params["down"].T @ pooled
    up = params["up"].T @ (down / (1 + np.exp(-down)))
    hidden = (up - up.mean()) / np.sqrt(up.var() + 1e-5)
    hidden = hidden * params["norm_scale"] + params["norm_bias"]
    prompts = [*SOURCES, params["prompt"]]
    scores = np.array([prompt.max(axis=0) @ hidden for prompt in prompts]) / 2.0
    weights = np.exp(scores) / np.exp(scores).sum()
    mixed = sum(weight * prompt for weight, prompt in zip(weights, prompts, strict=True))
    return params["prompt"] + mixed


@pytest.fixture(scope="module")
def embedded():
    return jnp.asarray(NUMBERS.normal(size=(3, 5, EMBED)), jnp.float32)


def shaken(trained):
    """Numbers none of which is one, or zero, by default."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(x + rng.normal(size=x.shape), jnp.float32), trained)


def test_each_input_gets_the_papers_mixture(embedded):
    method, trained = attention()
    trained = shaken(trained)
    mixture = method.apply(trained, {}).encoder_prompt_mixture
    prompts = mixture.prompt(embedded, jnp.ones((3, 5), bool))
    for row in range(3):
        expected = by_hand(trained["params"], embedded[row])
        np.testing.assert_allclose(prompts[row], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(prompts[0] - prompts[1]).max() > 1e-3  # it sees the input


def test_padding_is_left_out_of_the_attention(embedded):
    method, trained = attention()
    injection = method.apply(shaken(trained), {})
    mask = jnp.array([[True] * 5, [True] * 3 + [False] * 2, [False] * 5])
    longer, _ = add_prompt(embedded, mask, injection)
    shorter, _ = add_prompt(embedded[1:2, :3], mask[1:2, :3], injection)
    np.testing.assert_allclose(longer[1, : LENGTH + 3], shorter[0], rtol=1e-5, atol=1e-6)
    assert np.isfinite(longer).all()  # a row that has no tokens too


def test_an_input_of_padding_alone_spoils_no_gradient(embedded):
    method, trained = attention()

    def loss(trained):
        mask = jnp.array([[True] * 5, [False] * 5, [True] * 5])
        return add_prompt(embedded, mask, method.apply(trained, {}))[0].sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(loss)(trained)))


def test_mixtures_share_a_batch(embedded):
    method, trained = attention()
    injections = [method.apply(shaken(trained), {}), method.apply(trained, {})]
    mask = jnp.ones((2, 5), bool)
    together, _ = add_prompt(embedded[:2], mask, batch_injections(injections))
    for row, injection in enumerate(injections):
        alone, _ = add_prompt(embedded[row : row + 1], mask[:1], injection)
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-5, atol=1e-6)


def test_a_prompt_and_a_mixture_exclude_each_other(embedded):
    method, trained = attention()
    mixture = method.apply(trained, {}).encoder_prompt_mixture
    assert isinstance(mixture, PromptMixture)
    both = Injection(encoder_prompt=jnp.zeros((1, 2, EMBED)), encoder_prompt_mixture=mixture)
    with pytest.raises(ValueError, match="not both"):
        add_prompt(embedded, jnp.ones((3, 5), bool), both)


def test_sources_are_no_part_of_what_is_trained():
    method, trained = attention()
    assert set(trained) == {"params"} and set(trained["params"]) == {
        *("prompt", "down", "up", "norm_scale", "norm_bias")
    }
    again, _ = attention()
    assert method == again and hash(method) == hash(again)
    others = METHOD.init(jax.random.key(0), {})["sources"]["prompts"] + 1
    assert method != bind(METHOD, {**trained, "sources": {"prompts": others}})[0]
    folded, variables = method.fold(trained)  # nothing to simplify, but whole
    np.testing.assert_array_equal(variables["sources"]["prompts"], SOURCES)
    mixture = folded.apply(variables, {}).encoder_prompt_mixture
    np.testing.assert_array_equal(mixture.sources[0], SOURCES)


def test_shares_that_do_not_see_the_input_are_a_softmax():
    method = MixedPrompt(
        length=LENGTH, embed_dim=EMBED, sources=2, source_initializer=from_array(SOURCES)
    )
    method, trained = bind(method, method.init(jax.random.key(0), {}))
    own = trained["params"]["prompt"]
    at_first = method.apply(trained, {}).encoder_prompt[0]
    np.testing.assert_allclose(at_first, own + (own + SOURCES.sum(axis=0)) / 3, atol=1e-6)
    trained["params"]["logits"] = jnp.log(jnp.array([0.5, 0.2, 0.3]))
    expected = own + 0.5 * SOURCES[0] + 0.2 * SOURCES[1] + 0.3 * own
    folded, variables = method.fold(trained)
    np.testing.assert_allclose(variables["params"]["prompt"], expected, atol=1e-6)
    assert folded.length == LENGTH
