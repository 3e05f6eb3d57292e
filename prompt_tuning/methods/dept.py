"""DePT: a short prompt and a low-rank update of the input's embeddings (Shi & Lipani, 2024).

The embedded input X_e of shape [source, embed] becomes (section 2.2)

    [P; X_e + A B],  P [prompt, embed], A [positions, rank], B [rank, embed]

P, A and B are trained, and A B is added by position: row i to the input's i-th embedding. The paper
chooses sizes that together have as many parameters as a prompt of 100 virtual tokens, and a lower
learning rate for A and B than for P (`rate_factors` of the optimizers). A is initialized uniformly
as in the paper's code and B to zero, so the inputs are initially unchanged.
"""

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import at_least
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import Initializer, MakeInitializer, random_uniform
from prompt_tuning.methods.prompt import check_prompt_length
from prompt_tuning.models.injection import Injection


class DePT(MethodModule):
    """A prompt of `length` virtual tokens, and an update of the first `positions` of the input.

    The trainable parameters are "prompt" [prompt, embed], "down" [positions, rank] and "up" [rank,
    embed]: length * embed + rank * (positions + embed) values. Embeddings of an input beyond
    `positions` aren't updated.

    Attributes:
      length: number of virtual tokens, at least 1.
      embed_dim: the frozen model's `embed_dim`.
      positions: the most tokens of an input (the paper: 256).
      rank: of the update, at least 1.
      initializer: initializes the prompt.

    Raises:
      UserError: a size isn't positive.
    """

    length: int
    embed_dim: int
    positions: int = 256
    rank: int = 45
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        check_prompt_length(self.length)
        at_least(1, {"dept.positions": self.positions, "dept.rank": self.rank})
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt and update, the same for every batch."""
        del batch
        prompt = self.param("prompt", self.initializer, (self.length, self.embed_dim), jnp.float32)
        # Uniform within rank**-0.5 on either side of zero.
        start = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        down = self.param("down", start, (self.positions, self.rank), jnp.float32)
        up = self.param("up", nn.initializers.zeros, (self.rank, self.embed_dim), jnp.float32)
        return Injection(encoder_prompt=prompt[None], encoder_update=(down @ up)[None])


@method
def dept(
    base: FrozenModel,
    length: int,
    initializer: MakeInitializer,
    positions: int = 256,
    rank: int = 45,
) -> DePT:
    """A short prompt and a low-rank update of the input's embeddings (DePT)."""
    return DePT(
        length=length,
        embed_dim=base.config.embed_dim,
        positions=positions,
        rank=rank,
        initializer=initializer(base),
    )
