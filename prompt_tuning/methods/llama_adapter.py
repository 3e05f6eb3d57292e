"""LLaMA-Adapter: prompts in the upper layers, behind gates that start at zero (Zhang et al., 2023).

In each of the upper layers, what a self-attention block gathers for queries Q becomes, before the
output projection (section 3.2; logits are scaled as in the block),

    softmax(Q K^T) V + tanh(g) softmax(Q K_p^T) V_p

where K_p and V_p are the block's keys and values of a trained prompt [prompt, embed], without a
position, and g is a trained gate for each head. Unlike with a prefix, the softmax over the input
isn't changed; with g initialized to zero, the model isn't either.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from prompt_tuning.errors import at_least
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.deep_prompt import check_length
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import GatedPrompt, Injection
from prompt_tuning.models.targets import Target, gated_blocks, select_targets


class LLaMAAdapter(MethodModule):
    """`length` gated vectors in the upper layers of the target attention blocks.

    With n = min(layers, the stack's), the trainable parameters of a block are "BLOCK/prompt" [n,
    prompt, embed] and "BLOCK/gate" [n, heads]: n * (length * embed + heads) values.

    Attributes:
      targets: the attention blocks; see `targets.gated_blocks`.
      length: number of virtual tokens, at least 1 (the paper: 10).
      layers: number of layers with a prompt, from the last one down (the paper: 30 of 32).
      initializer: initializes the prompts.

    Raises:
      UserError: a size isn't positive.
    """

    targets: tuple[Target, ...]
    length: int = 10
    layers: int = 30
    initializer: Callable[..., Any] = nn.initializers.normal(1.0)

    def __post_init__(self):
        check_length(self.length)
        at_least(1, {"llama_adapter.layers": self.layers})
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these prompts, the same for every batch."""
        del batch
        return Injection(gated_prompts={target.name: self._of(target) for target in self.targets})

    def _of(self, target: Target) -> GatedPrompt:
        (embed_dim,), (heads,) = target.inputs, target.outputs
        layers = min(self.layers, target.layers)

        def param(part: str, initializer: Any, *shape: int) -> Array:
            array = self.param(f"{target.name}/{part}", initializer, (layers, *shape), jnp.float32)
            # Lower layers have gates of zero; the 1 is the batch axis.
            below = ((target.layers - layers, 0), *[(0, 0)] * len(shape))
            return jnp.pad(array, below)[:, None]

        return GatedPrompt(
            prompt=param("prompt", self.initializer, self.length, embed_dim),
            gate=jnp.tanh(param("gate", nn.initializers.zeros, heads)),
        )


@method
def llama_adapter(
    base: FrozenModel,
    length: int = 10,
    layers: int = 30,
    blocks: Sequence[str] = ("attention", "self_attention"),
) -> LLaMAAdapter:
    """LLaMA-Adapter in the last `layers` layers of each stack, in these kinds of attention blocks.

    Blocks that the model doesn't have are left out.
    """
    found = gated_blocks(base.config)
    names = {target.name.split("/")[1] for target in found}
    known = [name for name in blocks if name in names]
    return LLaMAAdapter(
        targets=select_targets(found, [f"{name}/prompt" for name in known or blocks]),
        length=length,
        layers=layers,
    )
