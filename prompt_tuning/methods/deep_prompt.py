"""Deep prompts: trained keys and values in every layer (P-tuning v2; Liu et al., 2022).

In each layer of an attention block, keys K and values V [source, heads, head_dim] become [P_k; K]
and [P_v; V], and the P are all that is trained (section 3.2). Prefix tuning (Li & Liang, 2021;
`prefix.py`) injects the same; the difference is where the arrays come from: there a network makes
them of a small matrix while training, here they are trained themselves, with fewer parameters in
training and a higher learning rate. So what prefix tuning has trained is, once folded, a deep
prompt. The paper's classification head isn't needed: T5 answers in words.
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
"""The encoder's attention, the decoder's, and the decoder's to the encoder."""


class DeepPrompt(MethodModule):
    """`length` keys and values before those of every layer of some attention blocks.

    The trainable parameters are, by the name of each block, an array [layer, 2, prefix, heads,
    head_dim], keys first: 2 * length * layers * heads * head_dim parameters. Heads may have any
    size.

    Attributes:
      length: virtual tokens, at least 1.
      targets: the attention blocks; see `targets.attention_blocks`.
      initializer: gives the first values.

    Raises:
      UserError: the length isn't positive.
    """

    length: int
    targets: tuple[Target, ...]
    # As wide as T5's own keys and values.
    initializer: Callable[..., Any] = nn.initializers.normal(1.0)

    def __post_init__(self):
        check_length(self.length)
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these keys and values; it is the same for every batch."""
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
    """Returns what injects keys and values [layer, 2, prefix, heads, head_dim] by block."""
    by_head = {name: array.swapaxes(2, 3) for name, array in arrays.items()}
    return Injection(
        prefixes={
            name: KeyValue(key=array[:, 0, None], value=array[:, 1, None])
            for name, array in by_head.items()
        }
    )


def prefix_arrays(injection: Injection) -> dict[str, Array]:
    """Returns the keys and values that `prefix_injection` was given."""
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
    """A deep prompt (P-tuning v2) in some attention blocks, with normal initial values."""
    return DeepPrompt(
        length=length,
        targets=select_targets(attention_blocks(base.config), blocks),
        initializer=nn.initializers.normal(stddev),
    )
