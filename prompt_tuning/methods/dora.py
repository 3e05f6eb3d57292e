"""DoRA: LoRA whose kernels keep trained magnitudes (Liu et al., 2024, section 4).

A projection h = x W becomes

    h = x (W + s A B) * m / ||W + s A B||

with LoRA's A, B and scaling s (`lora.py`). The norm is over the inputs of each output feature, and
m [outputs] is trained. m is initialized to ||W|| and B to zero, so the model is initially
unchanged. As in the paper (section 4.3), the norm is a constant in the backward pass. After
training all of it can be merged into W (`prompt_tuning.models.merging`).
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from prompt_tuning.methods.base import Batch
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.targets import Target, kernel_norms, select_targets
from prompt_tuning.models.targets import projections as projections_of


def _ones(target: Target) -> Array:
    """Returns ones, to be replaced by values such as those of a file."""
    return jnp.ones((target.layers, *target.outputs))


class DoRA(LoRA):
    """LoRA with a trained magnitude of each output feature.

    Besides LoRA's, the trainable parameters of a projection are "NAME/magnitude" [layer, *outputs]:
    layers * (rank * (inputs + outputs) + outputs) values. Other attributes and errors are LoRA's.

    Attributes:
      initializer: returns a target's initial magnitudes, the norms of the frozen kernels.
    """

    initializer: Callable[[Target], Array] = _ones

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these products and magnitudes, the same for every batch."""
        low_rank = dict(super().__call__(batch).low_rank)
        for target in self.targets:
            magnitude = self.param(
                f"{target.name}/magnitude",
                lambda _, target=target: jnp.asarray(self.initializer(target), jnp.float32),
            )
            low_rank[target.name] = dataclasses.replace(
                low_rank[target.name], magnitude=magnitude[:, None]
            )
        return Injection(low_rank=low_rank)


@method
def dora(
    base: FrozenModel,
    rank: int = 8,
    alpha: float | int = 8,
    projections: Sequence[str] = ("query", "value"),
    rank_stabilized: bool = False,
) -> DoRA:
    """DoRA of the given projections; the options are those of `lora`."""
    return DoRA(
        targets=select_targets(projections_of(base.config), projections),
        rank=rank,
        alpha=float(alpha),
        rank_stabilized=rank_stabilized,
        initializer=lambda target: kernel_norms(base.params, target),
    )
