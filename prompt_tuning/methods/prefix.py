"""Prefix tuning: keys and values computed by a small network in training (Li & Liang, 2021).

In each layer of an attention block, keys K and values V become [P_k; K] and [P_v; V]. Training P
directly was unstable in the paper, so during training (section 4.3)

    P[i] = MLP(P'[i]),  MLP(x) = W_2 tanh(W_1 x + b_1) + b_2

with P' [prefix, embed], as wide as an embedding, as in the paper's code. Encoder, decoder and
cross-attention have one P' and one network each, whose output contains the keys and values of all
layers. After training only P is needed: `fold` computes it and returns a `DeepPrompt`. Lester et
al. (2021, figure 4) count the parameters of both training and inference.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import UserError, at_least
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.deep_prompt import (
    ATTENTION,
    DeepPrompt,
    check_length,
    prefix_arrays,
    prefix_injection,
)
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.targets import Target, attention_blocks, select_targets

# PyTorch's default for a linear layer, which the paper's code uses.
_KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PrefixTuning(MethodModule):
    """Keys and values, computed by a network, prepended in the target attention blocks.

    With o = 2 * layers * heads * head_dim, a block trains length * embed + hidden_dim * (embed + 1)
    + o * (hidden_dim + 1) parameters; once folded, it has length * o.

    Attributes:
      length: number of virtual tokens, at least 1 (the paper: 10 for table-to-text, 200 for
        summarization).
      targets: the attention blocks; see `targets.attention_blocks`.
      hidden_dim: width of the network's hidden layer (the paper: 512 and 800).
      initializer: initializes P'.

    Raises:
      UserError: the length or the width isn't positive.
    """

    length: int
    targets: tuple[Target, ...]
    hidden_dim: int = 512
    initializer: Callable[..., Any] = nn.initializers.normal(1.0)

    def __post_init__(self):
        check_length(self.length)
        hint = "; deep_prompt is the method without a network"
        at_least(1, {"prefix.hidden_dim": self.hidden_dim}, hint)
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these keys and values, the same for every batch."""
        del batch
        arrays = {}
        for target in self.targets:
            name, (embed_dim,) = target.name, target.inputs
            small = self.param(
                f"{name}/prefix", self.initializer, (self.length, embed_dim), jnp.float32
            )
            hidden = jnp.tanh(
                nn.Dense(self.hidden_dim, kernel_init=_KERNEL, name=f"{name}/hidden")(small)
            )
            heads, head_dim = target.outputs
            width = target.layers * 2 * heads * head_dim
            made = nn.Dense(width, kernel_init=_KERNEL, name=f"{name}/out")(hidden)
            made = made.reshape(self.length, target.layers, 2, heads, head_dim)
            arrays[name] = jnp.moveaxis(made, 0, 2)  # [layer, 2, prefix, heads, head_dim]
        return prefix_injection(arrays)

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns a `DeepPrompt` of the network's keys and values.

        Raises:
          UserError: the parameters have been folded before.
        """
        names = {f"{target.name}/{part}" for target in self.targets for part in _PARTS}
        if set(trained["params"]) != names:
            raise UserError(
                "These parameters of prefix tuning are already folded: they are keys and values, "
                "without the network that computes them. Use them as a deep_prompt."
            )
        injection = self.apply(trained, {})
        assert isinstance(injection, Injection)
        folded = DeepPrompt(length=self.length, targets=self.targets)
        return folded, {"params": prefix_arrays(injection)}  # pyright: ignore[reportReturnType]


_PARTS = ("prefix", "hidden", "out")


@method
def prefix(
    base: FrozenModel, length: int, blocks: Sequence[str] = ATTENTION, hidden_dim: int = 512
) -> PrefixTuning:
    """Prefix tuning of the given attention blocks."""
    targets = select_targets(attention_blocks(base.config), blocks)
    return PrefixTuning(length=length, targets=targets, hidden_dim=hidden_dim)
