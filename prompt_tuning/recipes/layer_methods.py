"""The methods that reach into the model's layers, each made by a function of the frozen model."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.methods.adapter import BottleneckAdapter
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.prefix import PrefixTuning
from prompt_tuning.methods.weights import Weights, select_weights
from prompt_tuning.models import targets as places
from prompt_tuning.models.shapes import parameter_shapes
from prompt_tuning.models.targets import select_targets
from prompt_tuning.recipes.frozen_base import Base

# The encoder's, the decoder's, and that to the encoder.
ATTENTION = ("attention", "self_attention", "encoder_decoder_attention")
PLACEMENTS: Mapping[str, Sequence[str]] = {"houlsby": (*ATTENTION, "mlp"), "pfeiffer": ("mlp",)}
"""The blocks that have an adapter after them."""


def prefix(
    base: Base, length: int, blocks: Sequence[str] = ATTENTION, hidden_dim: int = 512
) -> Method:
    """Prefix tuning of some attention blocks."""
    targets = select_targets(places.attention_blocks(base.config), blocks)
    return _method(PrefixTuning(length=length, targets=targets, hidden_dim=hidden_dim))


def deep_prompt(
    base: Base, length: int, blocks: Sequence[str] = ATTENTION, stddev: float = 1.0
) -> Method:
    """A deep prompt (P-tuning v2) of some attention blocks, which starts normal."""
    targets = select_targets(places.attention_blocks(base.config), blocks)
    start = jax.nn.initializers.normal(stddev)
    return _method(DeepPrompt(length=length, targets=targets, initializer=start))


def lora(
    base: Base,
    rank: int = 8,
    alpha: float | int = 8,
    projections: Sequence[str] = ("query", "value"),
    rank_stabilized: bool = False,
) -> Method:
    """LoRA of some projections: "query", "key", "value", "out", "wi_0", "wi_1", "wi", "wo"."""
    targets = select_targets(places.projections(base.config), projections)
    return _method(
        LoRA(targets=targets, rank=rank, alpha=float(alpha), rank_stabilized=rank_stabilized)
    )


def ia3(base: Base, modules: Sequence[str] = ("key", "value", "hidden")) -> Method:
    """IA3 of some modules."""
    return _method(IA3(targets=select_targets(places.scalable(base.config), modules)))


def adapter(
    base: Base, width: int = 64, placement: str = "houlsby", activation: str = "gelu"
) -> Method:
    """Bottleneck adapters, placed as `PLACEMENTS` says.

    Raises:
      UserError: there is no such placement.
    """
    if placement not in PLACEMENTS:
        raise UserError(
            f"adapter.placement is '{placement}'; expected {' or '.join(PLACEMENTS)}."
            f"{did_you_mean(placement, PLACEMENTS)}"
        )
    targets = select_targets(places.blocks(base.config), PLACEMENTS[placement])
    return _method(BottleneckAdapter(targets=targets, width=width, activation=activation))


def weights(base: Base, patterns: Sequence[str] = ("*",)) -> Method:
    """The model's own parameters whose names fit any of the patterns: model tuning, or less."""
    leaves = {
        "/".join(str(getattr(key, "key", key)) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(base.params)
    }

    def start(name: str, shape: tuple[int, ...]) -> Any:
        # `prompt-tuning plan` has no values, only shapes.
        values = leaves[name]
        return jnp.zeros(shape) if isinstance(values, jax.ShapeDtypeStruct) else values

    shapes = select_weights(parameter_shapes(base.config), patterns)
    return _method(Weights(shapes=shapes, initializer=start))


def _method(module: Any) -> Method:
    return cast(Method, module)  # Flax types what `apply` returns only loosely
