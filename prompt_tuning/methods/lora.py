"""LoRA: low-rank additions to projections (Hu et al., 2021, section 4.1).

A projection h = x W becomes h = x W + (alpha / rank) x A B, with A [inputs, rank] and
B [rank, outputs] trained in every layer (the paper writes them transposed). A is initialized from a
normal distribution with variance 1 / inputs (the paper doesn't state one) and B to zero, so the
model is initially unchanged. Rank-stabilized scaling is alpha / sqrt(rank) (Kalajdzievski, 2023).
After training the product can be merged into W (`prompt_tuning.models.merging`).
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection, LowRank
from prompt_tuning.models.targets import Target, select_targets
from prompt_tuning.models.targets import projections as projections_of


class LoRA(MethodModule):
    """A low-rank product added to the kernels of the target projections, in every layer.

    For each projection, the trainable parameters are "NAME/down" [layer, *inputs, rank] and
    "NAME/up" [layer, rank, *outputs]: layers * rank * (inputs + outputs) values.

    Attributes:
      targets: the projections; see `targets.projections`.
      rank: at least 1 (the paper's GLUE runs: 8).
      alpha: the products are multiplied by alpha / rank.
      rank_stabilized: multiply by alpha / sqrt(rank) instead.

    Raises:
      UserError: the rank isn't positive, or exceeds that of a projection's kernel.
    """

    targets: tuple[Target, ...]
    rank: int = 8
    alpha: float = 8.0
    rank_stabilized: bool = False

    def __post_init__(self):
        narrowest = min(
            (
                (math.prod(axes), target.name)
                for target in self.targets
                for axes in (target.inputs, target.outputs)
            ),
            default=(self.rank, ""),
        )
        if not 1 <= self.rank <= narrowest[0]:
            raise UserError(
                f"lora.rank is {self.rank}; expected 1 to {narrowest[0]}, the most that "
                f"{narrowest[1]} can have. The paper's is 8."
            )
        super().__post_init__()

    @property
    def scaling(self) -> float:
        """The factor applied to the products."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these products, the same for every batch."""
        del batch
        low_rank = {}
        for target in self.targets:
            down = self.param(
                f"{target.name}/down",
                nn.initializers.normal(math.prod(target.inputs) ** -0.5),
                (target.layers, *target.inputs, self.rank),
                jnp.float32,
            )
            up = self.param(
                f"{target.name}/up",
                nn.initializers.zeros,
                (target.layers, self.rank, *target.outputs),
                jnp.float32,
            )
            # [:, None] adds the batch axis.
            low_rank[target.name] = LowRank(down=down[:, None], up=self.scaling * up[:, None])
        return Injection(low_rank=low_rank)


@method
def lora(
    base: FrozenModel,
    rank: int = 8,
    alpha: float | int = 8,
    projections: Sequence[str] = ("query", "value"),
    rank_stabilized: bool = False,
) -> LoRA:
    """LoRA of the given projections: "query", "key", "value", "out", "wi_0", "wi_1", "wi", "wo"."""
    targets = select_targets(projections_of(base.config), projections)
    return LoRA(targets=targets, rank=rank, alpha=float(alpha), rank_stabilized=rank_stabilized)
