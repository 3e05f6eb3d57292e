"""VeRA: trained scales of frozen random low-rank matrices (Kopiczko et al., 2024, section 3).

A projection h = x W becomes (the paper writes matrices transposed)

    h = x W + ((x A) * d) B * b

with * element by element. A [inputs, rank] and B [rank, outputs] are random, frozen, and shared by
all layers and projections; narrower ones use their first rows and columns. Only d [rank] and b
[outputs] of each projection are trained. d is initialized to 0.1 and b to zero, so the model is
initially unchanged. A and B have Kaiming's uniform distribution, as in PEFT. After training the
product can be merged into W (`prompt_tuning.models.merging`).
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from prompt_tuning.errors import at_least
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection, LowRank
from prompt_tuning.models.targets import Target, select_targets
from prompt_tuning.models.targets import projections as projections_of


class VeRA(MethodModule):
    """Scales of a shared random product, added to the target projections in every layer.

    For each projection, the trainable parameters are "NAME/d" [layer, rank] and "NAME/b" [layer,
    *outputs]: layers * (rank + outputs) values. A and B are constants, in the collection
    "projections", which is saved too.

    Attributes:
      targets: the projections; see `targets.projections`.
      rank: at least 1; much higher than LoRA's (the paper: 256 and 1,024).
      initial_scale: the first value of d.
      seed: of A and B, the same for all runs.

    Raises:
      UserError: the rank isn't positive.
    """

    targets: tuple[Target, ...]
    rank: int = 256
    initial_scale: float = 0.1
    seed: int = 0

    def __post_init__(self):
        at_least(1, {"vera.rank": self.rank}, " (the paper's are 256 and 1024)")
        super().__post_init__()

    @property
    def widest_inputs(self) -> int:
        """The rows of A."""
        return max(math.prod(target.inputs) for target in self.targets)

    @property
    def widest_outputs(self) -> int:
        """The columns of B."""
        return max(math.prod(target.outputs) for target in self.targets)

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of the scaled products, the same for every batch."""
        del batch
        shared_down = self._random("down", (self.widest_inputs, self.rank))
        shared_up = self._random("up", (self.rank, self.widest_outputs))
        low_rank = {}
        for target in self.targets:
            layers, inputs, outputs = target.layers, target.inputs, target.outputs
            d = self.param(
                f"{target.name}/d",
                nn.initializers.constant(self.initial_scale),
                (layers, self.rank),
                jnp.float32,
            )
            b = self.param(
                f"{target.name}/b", nn.initializers.zeros, (layers, *outputs), jnp.float32
            )
            down = shared_down[: math.prod(inputs)] * d[:, None]  # [layer, inputs, rank]
            up = shared_up[:, : math.prod(outputs)] * b.reshape(layers, 1, -1)
            low_rank[target.name] = LowRank(
                down=down.reshape(layers, 1, *inputs, self.rank),  # the 1 is the batch axis
                up=up.reshape(layers, 1, self.rank, *outputs),
            )
        return Injection(low_rank=low_rank)

    def _random(self, name: str, shape: tuple[int, int]) -> Array:
        """Returns a matrix with variance 2 / inputs."""
        key = jax.random.fold_in(jax.random.key(self.seed), name == "up")
        start = nn.initializers.he_uniform()
        return self.variable("projections", name, lambda: start(key, shape, jnp.float32)).value


@method
def vera(
    base: FrozenModel,
    rank: int = 256,
    projections: Sequence[str] = ("query", "value"),
    initial_scale: float = 0.1,
    seed: int = 0,
) -> VeRA:
    """VeRA of the given projections, named as for `lora`."""
    targets = select_targets(projections_of(base.config), projections)
    return VeRA(targets=targets, rank=rank, initial_scale=initial_scale, seed=seed)
