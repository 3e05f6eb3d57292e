"""The methods that reach into the layers: what each trains, and that it computes what it says.

One small model and, for a method's slots, one program serve all tests.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_configs import TINY as CONFIG

from prompt_tuning.checkpoints.frozen.weights import unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.methods.adapter import BottleneckAdapter
from prompt_tuning.methods.base import bind
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.llama_adapter import LLaMAAdapter
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.prefix import PrefixTuning
from prompt_tuning.methods.registry import describe, method_name, rebuild
from prompt_tuning.methods.vera import VeRA
from prompt_tuning.methods.weights import Weights, select_weights
from prompt_tuning.models.config import MODELS
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.parameters import parameter_shapes
from prompt_tuning.models.stacking import batch_injections, stack_injections
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.targets import (
    attention_blocks,
    blocks,
    gated_blocks,
    kernel_norms,
    projections,
    scalable,
    select_targets,
)
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import Optimizer
from prompt_tuning.training.side_by_side import make_side_by_side_step
from prompt_tuning.training.step import (
    MethodLoss,
    ProgramKey,
    TrainState,
    injection_loss_fn,
    make_train_step,
    prompt_loss_fn,
)

MODEL = T5(CONFIG)
PATTERNS = {"norm_scales": ["*norm/scale"], "model_tuning": ["*"]}


def make(name, config=CONFIG, *, frozen=None, size=3, **options):
    """A method; `size` is its length, rank or width."""
    if name in ("prefix", "deep_prompt"):
        kind = {"prefix": PrefixTuning, "deep_prompt": DeepPrompt}[name]
        return kind(length=size, targets=attention_blocks(config), **options)
    if name in ("lora", "dora", "vera"):
        endings = options.pop("projections", ("query", "value"))
        targets = select_targets(projections(config), endings)
        if name == "vera":
            method = VeRA(targets=targets, rank=size, **options)
            return bind(method, method.init(jax.random.key(0), {}))[0]
        if name == "dora" and frozen is not None:
            options["initializer"] = lambda target: kernel_norms(frozen, target)
        return {"lora": LoRA, "dora": DoRA}[name](targets=targets, rank=size, **options)
    if name == "llama_adapter":
        return LLaMAAdapter(targets=gated_blocks(config), length=size, **options)
    if name == "ia3":
        return IA3(targets=scalable(config))
    if name == "adapter":
        targets = select_targets(blocks(config), options.pop("blocks", BLOCKS))
        return BottleneckAdapter(targets=targets, width=size, **options)
    flat = {} if frozen is None else by_name(frozen)
    shapes = select_weights(parameter_shapes(config), PATTERNS[name])
    start = {"initializer": lambda name, shape: flat[name]} if flat else {}
    return Weights(shapes=shapes, **start)


BLOCKS = ("attention", "self_attention", "encoder_decoder_attention", "mlp")
METHODS = (
    *("prefix", "deep_prompt", "llama_adapter", "lora", "dora", "vera", "ia3", "adapter"),
    *("norm_scales", "model_tuning"),
)
NO_EFFECT_AT_FIRST = METHODS[2:]
OF_EXAMPLES = METHODS[:-2]


def quick(*names, of):
    """Parameters of a test, of which `names` run always; tests/models/test_injection.py has all
    slots in it."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=() if name in names else slow) for name in of]


def by_name(tree):
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.fixture(scope="module")
def frozen():
    numbers = np.random.default_rng(0)
    return unflatten(
        {
            name: jnp.asarray(0.3 * numbers.normal(size=shape) + name.endswith("scale"), "float32")
            for name, shape in parameter_shapes(CONFIG).items()
        }
    )


@pytest.fixture(scope="module")
def batch():
    numbers = np.random.default_rng(0)
    inputs = numbers.integers(2, 24, (4, 6), np.int32)
    inputs[1, 4:] = 0
    targets = numbers.integers(2, 24, (4, 4), np.int32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones((4, 4), np.float32),
    }


@jax.jit
def logits_of(frozen, batch, injection):
    variables, injection = injected(frozen, injection)
    return MODEL.apply(variables, batch, injection)


def drawn(method, seed, scale=0.3):
    """Random variables, other than those that a method starts from."""
    numbers = np.random.default_rng(seed)
    start = method.init(jax.random.key(0), {})
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(numbers.normal(scale=scale, size=leaf.shape), jnp.float32),
        start,
    )


def unbound(method):
    """The method without its constants."""
    return getattr(method, "method", method)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_written_down_and_made_again(name):
    method = unbound(make(name))
    again = rebuild(method_name(method), describe(method))
    assert again == method and hash(again) == hash(method)
    shapes = [jax.eval_shape(each.init, jax.random.key(0), {}) for each in (method, again)]
    assert shapes[0] == shapes[1]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes[0]))


@pytest.mark.parametrize("name", quick("lora", "ia3", of=METHODS))
def test_the_model_is_at_first_as_it_was_where_theory_says_so(name, frozen, batch):
    method = make(name, frozen=frozen)
    trained = method.init(jax.random.key(1), batch)
    found = logits_of(frozen, batch, method.apply(trained, batch))
    bare = logits_of(frozen, batch, Injection())
    if name in NO_EFFECT_AT_FIRST:
        np.testing.assert_allclose(found, bare, atol=1e-5)
    other = logits_of(frozen, batch, method.apply(drawn(method, 1), batch))
    assert np.abs(other - bare).max() > 0.05


@pytest.mark.parametrize("name", quick("lora", of=METHODS))
def test_only_its_own_numbers_move(name, frozen, batch):
    before = bits(frozen)
    method = make(name, frozen=frozen)
    optimizer = optax.adam(0.01)
    step = make_train_step(prompt_loss_fn(MODEL, method, LossOptions()), optimizer)
    trained = method.init(jax.random.key(1), batch)
    state = TrainState.create(jax.tree.map(jnp.array, trained), optimizer)
    losses = []
    for _ in range(8):
        state, metrics = step(state, frozen, batch, jax.random.key(2))
        losses.append(float(metrics["loss"]))
    assert bits(frozen) == before
    assert losses[-1] < losses[0] - 0.01
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), state.trained, trained)
    # The query of a single layer's attention over one key, say, may have no gradient at all.
    still = [path for path, most in jax.tree_util.tree_leaves_with_path(moved) if most == 0]
    assert not still


def count(method):
    shapes = jax.eval_shape(method.init, jax.random.key(0), {})
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("name", "model", "options", "expected"),
    [
        # 36 attention blocks, queries and values: what PEFT documents of T5 Base.
        ("lora", "t5_base", {"size": 8}, 884_736),
        ("lora", "t5_1_1_small", {"size": 8}, 2 * 24 * 8 * (512 + 384)),
        ("lora", "t5_1_1_xxl", {"size": 4}, 2 * 72 * 4 * (4096 + 4096)),
        ("dora", "t5_base", {"size": 8}, 884_736 + 2 * 36 * 768),
        # Table 1 of the paper: layers * (width + rank) for each kind of projection.
        ("vera", "t5_base", {"size": 256}, 2 * 36 * (768 + 256)),
        ("vera", "t5_1_1_small", {"size": 16}, 2 * 24 * (384 + 16)),
        # T-Few's T0-3B is T5 1.1 XL: d_k + d_v + d_ff in each encoder layer, and d_k + d_v more in
        # each decoder layer.
        ("ia3", "t5_1_1_xl", {}, 24 * (2 * 2048 + 5120) + 24 * (4 * 2048 + 5120)),
        ("ia3", "t5_1_1_small", {}, 8 * (6 * 384 + 2 * 1024)),
        ("ia3", "t5_1_1_xxl", {}, 24 * (6 * 4096 + 2 * 10240)),
        # 2md + d + m an adapter, five a pair of layers.
        ("adapter", "t5_1_1_base", {"size": 64}, 12 * 5 * (2 * 64 * 768 + 768 + 64)),
        (
            "adapter",
            "t5_1_1_base",
            {"size": 48, "blocks": ("mlp",)},
            24 * (2 * 48 * 768 + 768 + 48),
        ),
        # Folded, 2 * layers * width for each position of three blocks.
        ("deep_prompt", "t5_1_1_small", {"size": 20}, 20 * 2 * 24 * 384),
        ("deep_prompt", "t5_1_1_xxl", {"size": 5}, 5 * 2 * 72 * 4096),
        (
            "prefix",
            "t5_1_1_base",
            {"size": 10, "hidden_dim": 512},
            3 * (10 * 768 + 768 * 512 + 512 + 512 * 18432 + 18432),
        ),
        (
            "prefix",
            "t5_1_1_small",
            {"size": 200, "hidden_dim": 800},
            3 * (200 * 512 + 512 * 800 + 800 + 800 * 6144 + 6144),
        ),
        # As the paper counts 1.2M: ten virtual tokens of 4096 in 30 layers of LLaMA 7B.
        (
            "llama_adapter",
            "t5_1_1_xxl",
            {"size": 10, "layers": 4},
            3 * 4 * (10 * 4096 + 64),
        ),
        ("norm_scales", "t5_1_1_small", {}, 512 * (8 * 2 + 8 * 3 + 2)),
        ("model_tuning", "t5_1_1_small", {}, 76_961_152),
        ("model_tuning", "t5_1_1_xxl", {}, 11_135_332_352),
    ],
)
def test_parameter_counts_are_those_of_the_papers(name, model, options, expected):
    assert count(make(name, MODELS[model], **options)) == expected


@pytest.mark.parametrize("name", METHODS)
def test_folded_is_unfolded(name, frozen, batch):
    method = make(name, frozen=frozen)
    trained = drawn(method, 2)
    folded, numbers = method.fold(trained)
    found = logits_of(frozen, batch, folded.apply(numbers, batch))
    expected = logits_of(frozen, batch, method.apply(trained, batch))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    same_name = "deep_prompt" if name == "prefix" else method_name(unbound(method))
    assert method_name(folded) == same_name
    again, same = folded.fold(numbers)
    assert again == folded and bits(same) == bits(numbers)


def test_a_network_is_folded_once():
    method = make("prefix")
    _, numbers = method.fold(drawn(method, 2))
    with pytest.raises(UserError, match="are already folded: they are keys and values"):
        method.fold(numbers)


@pytest.mark.parametrize("name", quick("lora", of=OF_EXAMPLES))
def test_a_mixed_batch_is_one_task_at_a_time(name, frozen, batch):
    """Sizes differ where they can, and examples of one batch have either's numbers."""
    methods = [make(name, size=size) for size in (2, 3)]
    numbers = [drawn(method, seed) for seed, method in enumerate(methods)]
    injections = [
        method.apply(trained, batch) for method, trained in zip(methods, numbers, strict=True)
    ]
    order = [0, 1, 1, 0]
    mixed = logits_of(frozen, batch, batch_injections([injections[i] for i in order]))
    alone = [logits_of(frozen, batch, injection) for injection in injections]
    for row, i in enumerate(order):
        np.testing.assert_allclose(mixed[row], alone[i][row], atol=2e-5)


def test_weights_are_all_examples(frozen, batch):
    method = make("norm_scales", frozen=frozen)
    injection = method.apply(method.init(jax.random.key(0), {}), batch)
    with pytest.raises(ValueError, match="their own weights"):
        batch_injections([injection, injection])
    arrays, injection_of = stack_injections([injection, injection])
    assert len(injection_of(arrays).weights) == len(method.shapes)


@pytest.mark.parametrize("name", quick("lora", of=METHODS))
def test_a_population_is_one_by_one(name, frozen, batch):
    methods = [make(name, frozen=frozen, size=size) for size in (2, 3)]
    optimizer = Optimizer.of(optax.sgd, 0.1)
    start = [drawn(method, seed, scale=0.1) for seed, method in enumerate(methods)]
    ends = []
    for method, trained in zip(methods, start, strict=True):
        step = make_train_step(prompt_loss_fn(MODEL, method, LossOptions()), optimizer)
        state = TrainState.create(jax.tree.map(jnp.array, trained), optimizer)
        ends.append(step(state, frozen, batch, jax.random.key(0))[0].trained)
    loss_of = injection_loss_fn(MODEL, LossOptions())
    step = make_side_by_side_step(
        [ProgramKey.of(MethodLoss(method, loss_of), optimizer) for method in methods]
    )
    states, _ = step(
        tuple(TrainState.create(jax.tree.map(jnp.array, each), optimizer) for each in start),
        frozen,
        {name: np.stack([array, array]) for name, array in batch.items()},
        np.stack([jax.random.key_data(jax.random.key(0))] * 2),
        np.full(2, 0.1, np.float32),
    )
    found = [state.trained for state in states]
    for method, end, together in zip(methods, ends, found, strict=True):
        for (path, expected), value in zip(
            jax.tree_util.tree_leaves_with_path(end), jax.tree.leaves(together), strict=True
        ):
            np.testing.assert_allclose(value, expected, atol=1e-5, err_msg=f"{method} {path}")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_trained_reaches_the_model(name, frozen, batch):
    method = make(name, frozen=frozen)
    first, changed = (
        logits_of(frozen, batch, method.apply(trained, batch))
        for trained in (method.init(jax.random.key(0), batch), drawn(method, 3))
    )
    assert np.abs(np.asarray(first) - np.asarray(changed)).max() > 1e-3


@pytest.mark.parametrize("name", quick("prefix", "norm_scales", of=METHODS))
def test_cached_decoding_is_teacher_forcing(name, frozen, batch):
    method = make(name, frozen=frozen)
    injection = method.apply(drawn(method, 3), batch)
    params = injected(frozen, injection)[0]["params"]
    tokens = batch["encoder_input_tokens"]
    found = np.asarray(generate(MODEL, params, tokens, injection, DecodingOptions(max_length=4)))
    inputs = {**batch, "decoder_input_tokens": np.pad(found, ((0, 0), (1, 0)))[:, :-1]}
    forced = np.argmax(logits_of(frozen, inputs, injection), axis=-1)
    ended = np.cumsum(found == CONFIG.eos_id, axis=1) - (found == CONFIG.eos_id) > 0
    np.testing.assert_array_equal(found[~ended], forced[~ended])


# What a user can get wrong.


@pytest.mark.parametrize("length", [0, -2])
@pytest.mark.parametrize("name", ["prefix", "deep_prompt"])
def test_a_prefix_needs_a_length(name, length):
    with pytest.raises(UserError, match=f"prefix length is {length}; it must be at least 1"):
        make(name, size=length)


@pytest.mark.parametrize(("rank", "most"), [(0, 10), (11, 10)])
def test_a_rank_fits_its_projections(rank, most):
    with pytest.raises(UserError, match=f"rank is {rank}; expected 1 to {most}, the most that dec"):
        make("lora", size=rank)


def test_a_projection_exists():
    with pytest.raises(UserError, match="no module named 'querry'.*Did you mean 'query'"):
        make("lora", projections=("querry",))


def test_widths_patterns_and_activations_are_checked():
    with pytest.raises(UserError, match="adapter.width is 0"):
        make("adapter", size=0)
    with pytest.raises(UserError, match="prefix.hidden_dim is 0; it must be at least 1"):
        make("prefix", hidden_dim=0)
    with pytest.raises(UserError, match="matches 'norm/scale'; \\* matches any text"):
        select_weights(parameter_shapes(CONFIG), ["norm/scale"])
    method = make("adapter", activation="swish")
    with pytest.raises(UserError, match="activation is 'swish'; expected gelu"):
        method.init(jax.random.key(0), {})
