"""The soft prompt: where it stands, that it alone is trained, and that the rest stays as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers
from prompt_tuning.methods.prompt import SoftPrompt, soft_prompt_array, soft_prompt_variables
from prompt_tuning.models.config import MODELS, T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

CONFIG = T5Config(
    name="tiny",
    vocab_size=64,
    embed_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
LENGTH = 5
MODEL = T5(CONFIG)


@pytest.fixture(scope="module")
def frozen():
    numbers = np.random.default_rng(0)

    def draw(path, leaf):
        """T5's own scales, so that attention isn't saturated and gradients are smooth."""
        names = {key.key for key in path}
        if "scale" in names:
            return jnp.ones(leaf.shape)
        scale = 1.0 if "embedding" in names else 0.09 if "query" in names else 0.25
        return jnp.asarray(numbers.normal(scale=scale, size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(CONFIG))


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(0)
    tokens = numbers.integers(2, 64, (4, 9)).astype(np.int32)
    tokens[1, 5:] = 0
    targets = numbers.integers(2, 64, (4, 3)).astype(np.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones((4, 3), np.float32),
    }
    return jax.tree.map(jnp.asarray, batch)


@pytest.fixture
def method():
    return SoftPrompt(length=LENGTH, embed_dim=16)


@jax.jit
def logits_of(frozen, batch, injection):
    return MODEL.apply({"params": frozen}, batch, injection)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_the_trained_numbers_are_one_array(method, batch):
    trained = method.init(jax.random.key(1), batch)
    assert jax.tree.map(jnp.shape, trained) == {"params": {"prompt": (LENGTH, 16)}}
    assert soft_prompt_array(trained).dtype == jnp.float32


@pytest.mark.parametrize(
    ("size", "count"),
    [("small", 51_200), ("base", 76_800), ("large", 102_400), ("xl", 204_800), ("xxl", 409_600)],
)
def test_parameter_counts_are_the_papers(size, count):
    method = SoftPrompt(length=100, embed_dim=MODELS[f"t5_1_1_{size}"].embed_dim)
    trained = jax.eval_shape(method.init, jax.random.key(0), {})
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) == count


def test_the_first_values_are_the_initialisers(frozen, batch):
    table = frozen["token_embedder"]["embedding"]
    method = SoftPrompt(
        length=LENGTH, embed_dim=16, initializer=initializers.class_label(table, [[7], [8, 9]])
    )
    prompt = soft_prompt_array(method.init(jax.random.key(1), batch))
    np.testing.assert_array_equal(prompt[0], table[7])
    np.testing.assert_allclose(prompt[1], (table[8] + table[9]) / 2, rtol=1e-6)


def test_the_injection_is_the_prompt_for_any_batch(method, batch):
    trained = method.init(jax.random.key(1), batch)
    injection = method.apply(trained, batch)
    assert injection.encoder_prompt.shape == (1, LENGTH, 16)
    np.testing.assert_array_equal(injection.encoder_prompt[0], soft_prompt_array(trained))


def test_a_prompt_of_a_file_becomes_the_same_variables(method, batch):
    trained = method.init(jax.random.key(1), batch)
    again = soft_prompt_variables(np.asarray(soft_prompt_array(trained)))
    assert jax.tree.structure(again) == jax.tree.structure(trained) and bits(again) == bits(trained)


def test_a_prompt_of_embeddings_is_text_before_the_input(frozen, batch):
    """It takes positions 0 to p-1, seen by all: the same as those pieces written there."""
    pieces = np.array([7, 8, 9, 10, 11], np.int32)
    table = frozen["token_embedder"]["embedding"]
    prompted = logits_of(frozen, batch, Injection(encoder_prompt=table[pieces][None]))
    written = np.concatenate([np.tile(pieces, (4, 1)), batch["encoder_input_tokens"]], axis=1)
    expected = logits_of(frozen, {**batch, "encoder_input_tokens": written}, Injection())
    np.testing.assert_allclose(prompted, expected, rtol=1e-5, atol=1e-5)
    bare = logits_of(frozen, batch, Injection())
    assert np.abs(prompted - bare).max() > 0.1


@pytest.fixture(scope="module")
def run(frozen, batch):
    """Twenty steps on one batch: the frozen weights' bits before, the first prompt, the rest."""
    before = bits(frozen)
    method = SoftPrompt(length=LENGTH, embed_dim=16)
    optimizer = adafactor(0.3)
    step = make_train_step(prompt_loss_fn(MODEL, method, LossOptions()), optimizer)
    state = TrainState.create(method.init(jax.random.key(1), batch), optimizer)
    start = np.array(soft_prompt_array(state.trained))
    losses = []
    for _ in range(20):
        state, metrics = step(state, frozen, batch, jax.random.key(2))
        losses.append(float(metrics["loss"]))
    return before, start, state, losses


def test_only_the_prompt_moves(frozen, run):
    before, start, state, losses = run
    assert bits(frozen) == before
    moved = np.abs(np.asarray(soft_prompt_array(state.trained)) - start).max(axis=1)
    assert (moved > 0.1).all()  # every position
    assert losses[-1] < losses[0] - 0.5


def test_nothing_as_large_as_the_model_is_trained_or_kept(run):
    shapes = {leaf.shape for leaf in jax.tree.leaves(run[2]) if leaf.ndim}
    assert shapes <= {(LENGTH, 16), (1,)}  # optax keeps (1,) where Adafactor doesn't factor


def test_the_gradient_is_of_the_prompt_alone_and_correct(method, frozen, batch):
    """Its directional derivative against a central difference."""
    loss_fn = prompt_loss_fn(MODEL, method, LossOptions())
    trained = method.init(jax.random.key(1), batch)

    @jax.jit
    def loss(trained):
        return loss_fn(trained, frozen, batch, jax.random.key(0))[0]

    gradient = jax.grad(loss)(trained)
    assert jax.tree.structure(gradient) == jax.tree.structure(trained)
    direction = jax.tree.map(lambda g: g / optax.tree.norm(gradient), gradient)
    ahead, behind = (
        loss(jax.tree.map(lambda p, d, h=h: p + h * d, trained, direction)) for h in (0.003, -0.003)
    )
    assert (ahead - behind) / 0.006 == pytest.approx(float(optax.tree.norm(gradient)), rel=0.02)


@pytest.mark.parametrize("length", [0, -3])
def test_a_prompt_needs_a_length(length):
    with pytest.raises(UserError, match=f"prompt length is {length}; it must be at least 1"):
        SoftPrompt(length=length, embed_dim=16)
