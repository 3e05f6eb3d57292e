"""Deep prompts: trained keys and values in every layer (P-tuning v2; Liu et al., 2022).

In each layer of an attention block, keys K and values V [source, heads, head_dim] become [P_k; K]
and [P_v; V]; only P_k and P_v are trained (section 3.2). Prefix tuning (Li & Liang, 2021;
`prefix.py`) injects the same arrays, but during training a network computes them from a small
matrix. Here they are trained directly, with fewer trainable parameters and a higher learning rate.
A folded prefix is therefore a deep prompt. The paper's classification head isn't needed: T5 answers
in words.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from prompt_tuning.errors import at_least
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection, KeyValue
from prompt_tuning.models.targets import Target, attention_blocks, select_targets

ATTENTION = ("attention", "self_attention", "encoder_decoder_attention")
"""Encoder self-attention, decoder self-attention, and cross-attention."""


class DeepPrompt(MethodModule):
    """`length` keys and values prepended in every layer of the target attention blocks.

    For each block, the trainable parameter is an array [layer, 2, prefix, heads, head_dim], keys
    first: 2 * length * layers * heads * head_dim values.

    Attributes:
      length: number of virtual tokens, at least 1.
      targets: the attention blocks; see `targets.attention_blocks`.
      initializer: initializes the keys and values.

    Raises:
      UserError: the length isn't positive.
    """

    length: int
    targets: tuple[Target, ...]
    # The scale of T5's own keys and values.
    initializer: Callable[..., Any] = nn.initializers.normal(1.0)

    def __post_init__(self):
        check_length(self.length)
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these keys and values, the same for every batch."""
        del batch
        arrays = {
            target.name: self.param(
                target.name,
                self.initializer,
                (target.layers, 2, self.length, *target.outputs),
                jnp.float32,
            )
            for target in self.targets
        }
        return prefix_injection(arrays)


def prefix_injection(arrays: dict[str, Array]) -> Injection:
    """Returns the injection of keys and values [layer, 2, prefix, heads, head_dim] by block."""
    # [layer, 2, heads, prefix, head_dim]; `None` below adds the batch axis.
    by_head = {name: array.swapaxes(2, 3) for name, array in arrays.items()}
    return Injection(
        prefixes={
            name: KeyValue(key=array[:, 0, None], value=array[:, 1, None])
            for name, array in by_head.items()
        }
    )


def prefix_arrays(injection: Injection) -> dict[str, Array]:
    """Returns the keys and values of a `prefix_injection`, its inverse."""
    return {
        name: jnp.concatenate([prefix.key, prefix.value], axis=1).swapaxes(2, 3)
        for name, prefix in injection.prefixes.items()
    }


def check_length(length: int) -> None:
    """Raises UserError unless a prefix's length is positive."""
    hint = "; set PROMPT_LENGTH to the number of virtual tokens"
    at_least(1, {"The prefix length": length}, hint)


@method
def deep_prompt(
    base: FrozenModel, length: int, blocks: Sequence[str] = ATTENTION, stddev: float = 1.0
) -> DeepPrompt:
    """A deep prompt (P-tuning v2) in the given attention blocks, with normal initialization."""
    return DeepPrompt(
        length=length,
        targets=select_targets(attention_blocks(base.config), blocks),
        initializer=nn.initializers.normal(stddev),
    )
