"""What holds for every method that makes a prompt: placed, made by a network, or mixed.

What is one method's own is in its own file; the plain soft prompt is in test_prompt.py.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.analysis.methods_table import method_facts
from prompt_tuning.errors import UserError
from prompt_tuning.methods import registry
from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import bind
from prompt_tuning.methods.dept import DePT
from prompt_tuning.methods.factored import FactoredPrompt
from prompt_tuning.methods.initializers import random_uniform
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.methods.residual import ResidualPrompt
from prompt_tuning.methods.smop import SMoP
from prompt_tuning.models.config import MODELS, T5Config
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.stacking import batch_injections
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions, cross_entropy
from prompt_tuning.training.optimizers import Optimizer
from prompt_tuning.training.side_by_side import make_side_by_side_step, stack_batches
from prompt_tuning.training.step import (
    MethodLoss,
    ProgramKey,
    TrainState,
    injection_loss_fn,
    make_train_step,
)

pytestmark = pytest.mark.usefixtures("compile_once")

EMBED, LENGTH, TASKS = 16, 5, 3
PARTS = (("en", "qa"), ("en", "span"), ("th", "span"))
CONFIG = T5Config(
    name="tiny",
    vocab_size=64,
    embed_dim=EMBED,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
MODEL = T5(CONFIG)
SIZES = {"length": LENGTH, "embed_dim": EMBED}
METHODS = {
    "after": SoftPrompt(placement="after", **SIZES),
    "around": SoftPrompt(placement="around", **SIZES),
    "decoder": SoftPrompt(placement="decoder", **SIZES),
    "encoder_and_decoder": SoftPrompt(placement="encoder_and_decoder", **SIZES),
    "p_tuning_lstm": PTuning(hidden_dim=6, **SIZES),
    "p_tuning_mlp": PTuning(hidden_dim=6, encoder="mlp", **SIZES),
    "residual": ResidualPrompt(bottleneck=7, **SIZES),
    "mixed": MixedPrompt(sources=2, **SIZES),
    "attention_mixed": AttentionMixedPrompt(sources=2, width=4, temperature=3.0, **SIZES),
    "multitask": MultitaskPrompt(tasks=TASKS, **SIZES),
    "dept": DePT(positions=6, rank=2, **SIZES),
    "masked": SoftPrompt(attention=("input->prompt", "prompt->prompt;causal"), **SIZES),
    "smop": SMoP(prompts=3, **SIZES),
    "factored": FactoredPrompt(parts=PARTS, **SIZES),
}
FOLD = ("p_tuning_lstm", "p_tuning_mlp", "residual", "mixed")


@pytest.fixture(scope="module")
def frozen():
    numbers = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(numbers.normal(scale=0.3, size=leaf.shape), jnp.float32),
        abstract_params(CONFIG),
    )


def make_batch(seed):
    numbers = np.random.default_rng(seed)
    tokens = numbers.integers(2, 64, (4, 7)).astype(np.int32)
    tokens[1, 4:] = 0
    targets = numbers.integers(2, 64, (4, 3)).astype(np.int32)
    return {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones((4, 3), np.float32),
        "task": np.array([0, 2, 1, 0], np.int32),
    }


BATCH = make_batch(0)


@jax.jit
def logits_of(frozen, batch, injection):
    return MODEL.apply({"params": frozen}, batch, injection)


def start(name, seed=1):
    """A method and first values, with what isn't trained bound to it."""
    return bind(METHODS[name], METHODS[name].init(jax.random.key(seed), BATCH))


def moved(trained, seed=3):
    """Numbers as training may leave them: none is at its first value."""
    leaves, structure = jax.tree.flatten(trained)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    shifted = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, shifted)


def count(method):
    variables = jax.eval_shape(method.init, jax.random.key(0), {})
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_parameter_counts_of_the_placements():
    embed = MODELS["t5_1_1_xxl"].embed_dim
    places = {"after": 1, "around": 1, "decoder": 1, "encoder_and_decoder": 2}
    for placement, sets in places.items():
        method = SoftPrompt(length=100, embed_dim=embed, placement=placement)
        assert count(method) == sets * 409_600


def test_parameter_counts_of_the_networks():
    embed = MODELS["t5_1_1_base"].embed_dim
    half = embed // 2
    lstm = 2 * (4 * half * embed + 4 * half * half + 4 * half)  # both directions of a layer
    dense = embed * embed + embed
    method = PTuning(length=100, embed_dim=embed, hidden_dim=half)
    assert count(method) == 100 * embed + 2 * lstm + 2 * dense == 8_342_016
    method = PTuning(length=100, embed_dim=embed, hidden_dim=embed, encoder="mlp")
    assert count(method) == 100 * embed + 3 * dense
    method = ResidualPrompt(length=10, embed_dim=embed, bottleneck=800)
    assert count(method) == 10 * embed + 2 * 800 * embed + 800 + 3 * embed


def test_parameter_counts_of_mixed_prompts_are_the_papers():
    """ATTEMPT's 232k on T5 Base (its table 1), MPT's 77.6k (its table 1): 76,800 and 868."""
    embed = MODELS["t5_1_1_base"].embed_dim
    sizes = {"length": 100, "embed_dim": embed}
    assert count(AttentionMixedPrompt(sources=6, **sizes)) == 231_936
    assert count(MixedPrompt(sources=6, **sizes)) == 76_800 + 7
    assert count(MultitaskPrompt(tasks=1, **sizes)) == 77_668
    assert count(MultitaskPrompt(tasks=6, **sizes)) == 76_800 + 6 * 868
    # DePT's are as many as those of 100 virtual tokens (its section 2.2).
    assert count(DePT(length=40, embed_dim=embed)) == 40 * embed + 45 * (256 + embed) == 76_800
    # SMoP's 18K (its table 1).
    assert count(SMoP(length=5, embed_dim=embed)) == 4 * (5 + 1) * embed == 18_432
    assert count(FactoredPrompt(length=50, embed_dim=embed, parts=PARTS)) == 4 * 50 * embed


def test_the_table_of_methods_knows_constants_and_tasks():
    facts = {name: method_facts(name, METHODS[name], CONFIG) for name in METHODS}
    assert facts["mixed"].trained == LENGTH * EMBED + 3
    assert facts["mixed"].saved_bytes == 4 * LENGTH * EMBED  # folded
    assert facts["attention_mixed"].saved_bytes == 4 * (
        facts["attention_mixed"].trained + 2 * LENGTH * EMBED
    )
    assert facts["multitask"].trained == LENGTH * EMBED + TASKS * (LENGTH + EMBED)
    assert facts["around"].slots == ("encoder_prompt", "encoder_suffix")
    assert all(each.batches and not each.merges for each in facts.values())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_description_makes_the_same_method_again(method):
    text = registry.describe(method)
    assert registry.rebuild(registry.method_name(method), text) == method
    started = method.clone(initializer=random_uniform(0.0, 1.0))
    assert registry.describe(started) == text  # how it started is not written down


def toy_loss(injection, frozen, batch, key):
    """Something that sees the whole of an encoder prompt, and is quick to compile."""
    del key
    embedded = frozen["token_embedder"]["embedding"][batch["encoder_input_tokens"]]
    prompt, mixture = injection.encoder_prompt, injection.encoder_prompt_mixture
    if mixture is not None:
        prompt = mixture.prompt(embedded, batch["encoder_input_tokens"] > 0)
    hidden = embedded[:, :3] + jnp.tanh(prompt).mean(axis=1, keepdims=True)
    logits = hidden @ frozen["token_embedder"]["embedding"].T
    return cross_entropy(logits, batch["decoder_target_tokens"], batch["decoder_loss_weights"])


def loss_of_injection(name):
    """The model's own loss where something is injected that the plain soft prompt doesn't."""
    if name not in (*FOLD, "multitask", "factored"):
        return injection_loss_fn(MODEL, LossOptions())
    return toy_loss


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("multitask", "residual") else pytest.mark.slow)
        for name in METHODS
        if name not in ("after", "decoder")
    ],
)
def test_only_its_own_numbers_move_and_all_of_them(name, frozen):
    """ "after" and "decoder" are halves of others."""
    before = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(frozen)]
    method, trained = start(name)
    assert set(trained) == {"params"}
    first = jax.tree.map(np.array, trained)

    loss_of = loss_of_injection(name)

    def loss_fn(trained, frozen, batch, key):
        return loss_of(method.apply(trained, batch), frozen, batch, key)

    optimizer = optax.adam(0.02)
    step = make_train_step(loss_fn, optimizer)
    state = TrainState.create(trained, optimizer)
    losses = []
    for _ in range(8):
        state, metrics = step(state, frozen, BATCH, jax.random.key(2))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.01
    changed = jax.tree.map(lambda old, new: bool((old != new).any()), first, state.trained)
    assert all(jax.tree.leaves(changed)), changed
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(frozen)] == before


@pytest.mark.parametrize("name", FOLD)
def test_folded_gives_the_same_logits(name, frozen):
    method, trained = start(name)
    trained = moved(trained)
    folded, variables = method.fold(trained)
    assert type(folded) is SoftPrompt and folded.length == LENGTH
    expected = logits_of(frozen, BATCH, method.apply(trained, BATCH))
    found = logits_of(frozen, BATCH, folded.apply(variables, BATCH))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    again, same = folded.fold(variables)
    assert again is folded and same is variables


def test_residuals_and_task_vectors_start_without_an_effect():
    plain = SoftPrompt(**SIZES)
    prompt = plain.apply(plain.init(jax.random.key(1), {}), {}).encoder_prompt
    for name in ("residual", "multitask"):
        method, trained = start(name)
        found = method.apply(trained, BATCH).encoder_prompt
        np.testing.assert_array_equal(found, np.broadcast_to(prompt, found.shape))


@pytest.mark.parametrize(
    "name",
    [
        "around",
        "attention_mixed",
        "multitask",
        "dept",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("masked", "smop", "factored")),
    ],
)
def test_methods_share_a_batch(name, frozen):
    """Each half of a batch has numbers of its own, and gives what it gives alone."""
    (method, first), (_, second) = start(name), start(name, seed=5)
    halves = [{key: value[part] for key, value in BATCH.items()} for part in (np.s_[:2], np.s_[2:])]
    trained = [moved(first), moved(second, seed=4)]
    rows = [
        jax.tree.map(lambda x: jnp.broadcast_to(x, (2, *x.shape[1:])), method.apply(numbers, half))
        for numbers, half in zip(trained, halves, strict=True)
    ]
    together = logits_of(frozen, BATCH, batch_injections(rows))
    for place, (numbers, part) in enumerate(zip(trained, (np.s_[:2], np.s_[2:]), strict=True)):
        alone = logits_of(frozen, BATCH, method.apply(numbers, BATCH))
        np.testing.assert_allclose(together[part], alone[part], rtol=1e-5, atol=1e-5)
        other = method.apply(trained[1 - place], BATCH)
        assert np.abs(logits_of(frozen, BATCH, other)[part] - alone[part]).max() > 1e-2


@pytest.mark.parametrize("name", ["encoder_and_decoder", "attention_mixed"])
def test_decoding_says_what_teacher_forcing_finds_likeliest(name, frozen):
    method, trained = start(name)
    injection = method.apply(moved(trained), BATCH)
    tokens = BATCH["encoder_input_tokens"]
    made = generate(MODEL, frozen, tokens, injection, DecodingOptions(max_length=3))
    shifted = np.pad(np.asarray(made), ((0, 0), (1, 0)))[:, :-1]
    logits = logits_of(frozen, {**BATCH, "decoder_input_tokens": shifted}, injection)
    likeliest = np.asarray(logits.argmax(axis=-1))
    open_yet = np.cumprod(shifted[:, 1:] != CONFIG.eos_id, axis=1).astype(bool)
    open_yet = np.pad(open_yet, ((0, 0), (1, 0)), constant_values=True)
    np.testing.assert_array_equal(np.asarray(made)[open_yet], likeliest[open_yet])


@pytest.mark.parametrize(
    "name",
    [
        name if name == "multitask" else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
    ],
)
def test_a_population_is_its_members_one_by_one(name, frozen):
    """By plain gradient descent: Adam makes a whole step of a gradient's rounding."""
    rates, optimizer = (0.05, 0.1), Optimizer.of(optax.sgd, 0.1)
    method, _ = start(name)
    numbers = [moved(start(name)[1], seed=seed) for seed in (1, 2)]
    loss_fn = MethodLoss(method, loss_of_injection(name))
    together = make_side_by_side_step([ProgramKey.of(loss_fn, optimizer) for _ in numbers])
    keys = [jax.random.key(seed) for seed in (1, 2)]
    states = tuple(TrainState.create(trained, optimizer) for trained in numbers)
    for step in range(2):
        batch = stack_batches([make_batch(10 + step), make_batch(20 + step)])
        data = np.stack([jax.random.key_data(key) for key in keys])
        states, _ = together(states, frozen, batch, data, np.float32(rates))

    for place, trained in enumerate(numbers):
        own = Optimizer.of(optax.sgd, rates[place])
        alone = make_train_step(loss_fn, own)
        state = TrainState.create(jax.tree.map(jnp.copy, trained), own)
        for step in range(2):
            state, _ = alone(state, frozen, make_batch(10 * (place + 1) + step), keys[place])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            states[place].trained,
            state.trained,
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftPrompt(placement="befor", **SIZES), "placement is 'befor'.*'before'"),
        (lambda: SoftPrompt(length=1, embed_dim=4, placement="around"), "at least 2"),
        (lambda: PTuning(hidden_dim=0, **SIZES), "hidden_dim is 0"),
        (lambda: PTuning(hidden_dim=4, encoder="gru", **SIZES), "'gru'; expected lstm or mlp"),
        (lambda: PTuning(length=0, embed_dim=4, hidden_dim=4), "prompt length is 0"),
        (lambda: ResidualPrompt(bottleneck=0, **SIZES), "residual_prompt.bottleneck is 0"),
        (lambda: MixedPrompt(sources=0, **SIZES), "no source prompts"),
        (lambda: AttentionMixedPrompt(sources=1, width=0, **SIZES), "width is 0"),
        (lambda: AttentionMixedPrompt(sources=1, temperature=0.0, **SIZES), "above 0"),
        (lambda: MultitaskPrompt(tasks=0, **SIZES), "has 0 tasks"),
        (lambda: SMoP(prompts=0, **SIZES), "smop.prompts is 0"),
        (lambda: SMoP(noise=-0.5, **SIZES), "noise is -0.5; it must be 0 or above"),
        (lambda: FactoredPrompt(parts=(), **SIZES), r"are \(\); expected a language and a task"),
        (lambda: SoftPrompt(attention=("prompt>input",), **SIZES), "expected input->prompt.*mean"),
        (
            lambda: SoftPrompt(attention=(), placement="after", **SIZES),
            "only be restricted before the input; its placement is 'after'",
        ),
        (lambda: DePT(rank=0, **SIZES), "dept.rank is 0; it must be at least 1"),
    ],
)
def test_a_mistake_is_told_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as found:
        make()
    assert "\n" not in str(found.value)
