"""What one device and a mesh of eight emulated ones compute, for `test_emulated_devices.py`.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python emulated_devices.py METHOD MESH...

METHOD is of a T5, or t5gemma/METHOD. A mesh is DATA,MODEL,FSDP. Prints a JSON object: for "one" and
each mesh, numbers by name.
"""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.methods.adapter import BottleneckAdapter
from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import bind
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.dept import DePT
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.factored import FactoredPrompt
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.initializers import random_uniform
from prompt_tuning.methods.llama_adapter import LLaMAAdapter
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prefix import PrefixTuning
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.methods.residual import ResidualPrompt
from prompt_tuning.methods.smop import SMoP
from prompt_tuning.methods.vera import VeRA
from prompt_tuning.methods.weights import Weights, select_weights
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.layers import RMSNorm
from prompt_tuning.models.parameters import ModelConfig, parameter_axes, parameter_shapes
from prompt_tuning.models.stack import Stack
from prompt_tuning.models.t5gemma_config import T5GemmaConfig
from prompt_tuning.models.targets import (
    attention_blocks,
    blocks,
    gated_blocks,
    projections,
    scalable,
)
from prompt_tuning.parallel.mesh import make_mesh, replicate, replicated, shard_batch
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.planning.hlo import Program
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

T5_CONFIG = T5Config(
    name="eight_heads",
    vocab_size=64,
    embed_dim=16,
    num_heads=8,
    head_dim=4,
    mlp_dim=32,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
_STACK = Stack(
    embed_dim=16,
    mlp_dim=32,
    num_heads=8,
    num_kv_heads=4,
    head_dim=4,
    query_scalar=4.0,
    windows=(3, 0),
)
T5GEMMA_CONFIG = T5GemmaConfig(
    name="eight_heads", vocab_size=64, embed_dim=16, encoder=_STACK, decoder=_STACK
)
CONFIG: ModelConfig = T5_CONFIG
SIZES = {"length": 3, "embed_dim": CONFIG.embed_dim}


def weights(pattern: str) -> Weights:
    values = flatten(make_params())
    return Weights(
        shapes=select_weights(parameter_shapes(CONFIG), [pattern]),
        initializer=lambda name, shape: values[name],
    )


FLASH = "flash_attention"

# Each method that is added gets a line here.
METHODS = {
    "soft_prompt": lambda: SoftPrompt(**SIZES, initializer=random_uniform()),
    "soft_prompt_around": lambda: SoftPrompt(**SIZES, placement="around"),
    "soft_prompt_of_both": lambda: SoftPrompt(**SIZES, placement="encoder_and_decoder"),
    "p_tuning": lambda: PTuning(**SIZES, hidden_dim=4),
    "residual_prompt": lambda: ResidualPrompt(**SIZES, bottleneck=4),
    "mixed_prompt": lambda: MixedPrompt(**SIZES, sources=2),
    "attention_mixed_prompt": lambda: AttentionMixedPrompt(
        **SIZES, sources=2, width=4, temperature=4.0
    ),
    "multitask_prompt": lambda: MultitaskPrompt(**SIZES, tasks=2),
    "prefix": lambda: PrefixTuning(length=3, targets=attention_blocks(CONFIG), hidden_dim=5),
    FLASH: lambda: PrefixTuning(length=3, targets=attention_blocks(CONFIG), hidden_dim=5),
    "deep_prompt": lambda: DeepPrompt(length=3, targets=attention_blocks(CONFIG)),
    "lora": lambda: LoRA(targets=projections(CONFIG), rank=2),
    "llama_adapter": lambda: LLaMAAdapter(targets=gated_blocks(CONFIG), length=3),
    "dora": lambda: DoRA(targets=projections(CONFIG), rank=2),
    "vera": lambda: VeRA(targets=projections(CONFIG), rank=2),
    "smop": lambda: SMoP(**SIZES, prompts=3),
    "factored_prompt": lambda: FactoredPrompt(**SIZES, parts=(("en", "qa"), ("th", "span"))),
    "soft_prompt_causal": lambda: SoftPrompt(
        **SIZES, attention=("input->prompt", "prompt->prompt;causal")
    ),
    "dept": lambda: DePT(**SIZES, positions=6, rank=2),
    "ia3": lambda: IA3(targets=scalable(CONFIG)),
    "adapter": lambda: BottleneckAdapter(targets=blocks(CONFIG), width=3),
    "norm_scales": lambda: weights("*norm/scale"),
    "model_tuning": lambda: weights("*"),
}
MADE_BY_A_NETWORK = {
    "p_tuning",
    "residual_prompt",
    "mixed_prompt",
    "attention_mixed_prompt",
    "multitask_prompt",
    "dept",
    "smop",
    "factored_prompt",
    "vera",
    "prefix",
    FLASH,
}
LEARNING_RATE, STEPS = 0.1, 3


def make_batch(step: int) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(step)
    inputs = numbers.integers(2, CONFIG.vocab_size, (8, 7), np.int32)
    inputs[:3, 5:] = 0
    targets = numbers.integers(2, CONFIG.vocab_size, (8, 4), np.int32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.roll(targets, 1, axis=1),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (numbers.random((8, 4)) < 0.8).astype(np.float32),
        "task": numbers.integers(0, 2, 8, np.int32),
    }


def make_params():
    numbers = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: numbers.normal(scale=0.3, size=leaf.shape).astype(np.float32),
        abstract_params(CONFIG),
    )


def results(method, layout: Layout, all_decoders: bool, compute: Compute) -> dict:
    """A few steps, and decoding with what they made."""
    mesh = layout.mesh
    model = model_of(CONFIG, compute, layout)
    frozen = jax.tree.map(jax.device_put, make_params(), layout.shardings(abstract_params(CONFIG)))
    method, trained = bind(method, method.init(jax.random.key(1), make_batch(0)))
    trained = replicate(trained, mesh)
    optimizer = optax.sgd(LEARNING_RATE, momentum=0.9)

    def create(trained):
        return TrainState.create(jax.tree.map(jnp.copy, trained), optimizer)

    lying = layout.trained_shardings(jax.eval_shape(create, trained), frozen)
    step = make_train_step(
        prompt_loss_fn(model, method, LossOptions()), optimizer, 1, (lying, replicated(mesh))
    )
    state = jax.jit(create, out_shardings=lying)(trained)
    key = jax.random.key(2)
    if mesh.size > 1:
        step = step.lower(state, frozen, shard_batch(make_batch(0), mesh), key).compile()
    found = {"loss": []}
    for number in range(STEPS):
        state, metrics = step(state, frozen, shard_batch(make_batch(number), mesh), key)
        found["loss"].append(float(metrics["loss"]))
        if number == 0:
            moved = jax.tree.map(
                lambda old, new: (old - new) / LEARNING_RATE, trained, state.trained
            )
            found["gradient"] = flat(moved)
    found["trained"] = flat(state.trained)

    batch = shard_batch(make_batch(0), mesh)
    tokens, injection = batch["encoder_input_tokens"], method.apply(state.trained, batch)
    methods = ("greedy", "beam") if all_decoders else ("greedy",)
    for name in methods:
        options = DecodingOptions(max_length=4, method=name, beam_size=2)
        found[name] = np.asarray(generate(model, frozen, tokens, injection, options)).tolist()
    if all_decoders:
        scores = jax.jit(functools.partial(label_log_likelihoods, model))(
            frozen, tokens, injection, np.array([[5, 1, 0], [6, 7, 1]], np.int32)
        )
        found["rank"] = np.asarray(scores).tolist()
    if mesh.size > 1:
        found["kept"] = kept_by_a_norm(layout)
        found["collectives"] = [
            dataclasses.asdict(one) for one in Program(step.as_text()).collectives(mesh)
        ]
    return found


def kept_by_a_norm(layout: Layout) -> int:
    """How many values of its input, 8 x 3 positions, a device keeps for the backward pass."""
    norm, x = RMSNorm(T5_CONFIG, Compute(), layout), jnp.ones((8, 3, CONFIG.embed_dim))
    x = shard_batch({"x": x}, layout.mesh)["x"]
    scale = {"params": {"scale": jnp.ones(CONFIG.embed_dim)}}
    backward = jax.jit(lambda x: jax.vjp(lambda x: norm.apply(scale, x), x)[1])(x)
    (kept,) = (leaf for leaf in jax.tree.leaves(backward) if leaf.shape == x.shape)
    return kept.addressable_shards[0].data.size


def flat(tree) -> list[float]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).tolist()


def main(name: str, meshes: list[str]) -> None:
    global CONFIG
    family, _, name = name.rpartition("/")
    CONFIG = T5GEMMA_CONFIG if family == "t5gemma" else T5_CONFIG
    method = METHODS[name]()
    compute = Compute(attention="flash" if name == FLASH else "plain")
    devices = jax.devices()
    one = Layout(mesh=make_mesh(devices=devices[:1]), axes_of=parameter_axes)
    found = {"one": results(method, one, all_decoders="2,4,1" in meshes, compute=compute)}
    for text in meshes:
        data, model, fsdp = map(int, text.split(","))
        layout = Layout(
            mesh=make_mesh(data=data, model=model), axes_of=parameter_axes, fsdp=bool(fsdp)
        )
        found[text] = results(method, layout, all_decoders=text == "2,4,1", compute=compute)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
