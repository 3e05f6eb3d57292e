"""Distillation: what it adds to the loss, and that its teachers teach."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.distillation import Distillation, distillation_loss_fn
from prompt_tuning.training.losses import LossOptions, cross_entropy
from prompt_tuning.training.optimizers import Optimizer
from prompt_tuning.training.side_by_side import make_side_by_side_step, stack_batches
from prompt_tuning.training.step import MethodLoss, ProgramKey, TrainState, make_train_step

pytestmark = pytest.mark.usefixtures("compile_once")

CONFIG = T5Config(
    name="tiny",
    vocab_size=32,
    embed_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
MODEL, METHOD = T5(CONFIG), MultitaskPrompt(length=3, embed_dim=8, tasks=2)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(2, 32, (4, 6)).astype(np.int32)
TOKENS[1, 4:] = 0
TARGETS = RNG.integers(2, 32, (4, 2)).astype(np.int32)
BATCH: dict = {
    "encoder_input_tokens": TOKENS,
    "decoder_input_tokens": np.pad(TARGETS, ((0, 0), (1, 0)))[:, :-1],
    "decoder_target_tokens": TARGETS,
    "decoder_loss_weights": np.float32([[1, 1], [1, 0], [1, 1], [1, 1]]),
    "task": np.array([1, 0, 0, 1], np.int32),
}
PROMPTS = [RNG.normal(size=(1, length, 8)).astype(np.float32) for length in (3, 3)]
TEACHERS = batch_injections([Injection(encoder_prompt=jnp.asarray(prompt)) for prompt in PROMPTS])
BATCH = jax.tree.map(jnp.asarray, BATCH)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def frozen():
    numbers = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(numbers.normal(scale=0.3, size=leaf.shape), jnp.float32),
        abstract_params(CONFIG),
    )


def seen_by(frozen, prompts):
    """The encoder's outputs at the input's places and the log-probabilities, by plain calls."""
    injection, length = Injection(encoder_prompt=jnp.asarray(prompts)), prompts.shape[1]
    outputs, logits = run(frozen, injection)
    return np.asarray(outputs)[:, length:], np.asarray(jax.nn.log_softmax(logits))


@jax.jit
def run(frozen, injection):
    tokens = BATCH["encoder_input_tokens"]
    encoded = MODEL.apply({"params": frozen}, tokens, injection, method="encode")
    return encoded.outputs, MODEL.apply({"params": frozen}, BATCH, injection)


def test_the_loss_is_the_papers(frozen):
    trained = METHOD.init(KEY, BATCH)
    options = Distillation(teachers=TEACHERS, weight=0.9)
    loss_fn = jax.jit(MethodLoss(METHOD, distillation_loss_fn(MODEL, LossOptions(), options)))
    loss, weights = loss_fn(trained, frozen, BATCH, KEY)
    hidden, ours = seen_by(frozen, METHOD.apply(trained, BATCH).encoder_prompt)
    # Log-probabilities are logits too.
    task_loss, _ = cross_entropy(
        jnp.asarray(ours), jnp.asarray(TARGETS), BATCH["decoder_loss_weights"]
    )
    divergence, squares = 0.0, []
    for row, task in enumerate(BATCH["task"]):
        their_hidden, theirs = seen_by(frozen, np.repeat(PROMPTS[task], 4, axis=0))
        each = (np.exp(theirs[row]) * (theirs[row] - ours[row])).sum(axis=-1)
        divergence += (each * BATCH["decoder_loss_weights"][row]).sum()
        squares += [*((hidden[row] - their_hidden[row]) ** 2)[TOKENS[row] > 0].ravel()]
    expected = task_loss + 0.9 * (divergence + np.mean(squares) * 7)
    assert weights == 7
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_training_brings_the_student_nearer_to_its_teachers(frozen):
    trained = METHOD.init(KEY, BATCH)
    loss_fn = distillation_loss_fn(
        MODEL, LossOptions(), Distillation(teachers=TEACHERS, weight=100.0)
    )
    optimizer = optax.adam(0.03)
    step = make_train_step(MethodLoss(METHOD, loss_fn), optimizer)
    state = TrainState.create(trained, optimizer)
    losses = []
    for _ in range(30):
        state, metrics = step(state, frozen, BATCH, KEY)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.85 * losses[0]


def test_members_with_teachers_learn_as_they_would_alone(frozen):
    """Side by side; in turns their program is that of one."""
    distillation = Distillation(teachers=TEACHERS, weight=0.9)
    loss_fn = MethodLoss(METHOD, distillation_loss_fn(MODEL, LossOptions(), distillation))
    optimizer = Optimizer.of(optax.sgd, 0.1)
    starts = [METHOD.init(jax.random.key(seed), BATCH) for seed in (1, 2)]
    together = make_side_by_side_step([ProgramKey.of(loss_fn, optimizer)] * 2)
    states, metrics = together(
        tuple(TrainState.create(trained, optimizer) for trained in starts),
        frozen,
        stack_batches([BATCH, BATCH]),
        np.stack([jax.random.key_data(KEY)] * 2),
        np.float32([0.1, 0.1]),
    )
    alone = make_train_step(loss_fn, optimizer)
    for row, trained in enumerate(starts):
        first = TrainState.create(jax.tree.map(jnp.array, trained), optimizer)
        state, expected = alone(first, frozen, BATCH, KEY)
        np.testing.assert_allclose(metrics["loss"][row], expected["loss"], rtol=1e-5)
        jax.tree.map(
            lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5),
            states[row].trained,
            state.trained,
        )


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="train.distillation is -1.0"):
        Distillation(teachers=TEACHERS, weight=-1.0)
