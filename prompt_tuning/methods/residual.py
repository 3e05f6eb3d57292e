"""Residual prompt tuning (Razdaibiedina et al., 2023, section 3).

    P' = P + layer_norm(relu(P @ down + b) @ up + c)

P is [prompt, embed]. P and the bottleneck network, applied to each virtual token separately, are
trained. The model sees only P', so the method folds into a `SoftPrompt`.
"""

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import at_least
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import Initializer, MakeInitializer, random_uniform
from prompt_tuning.methods.prompt import check_prompt_length, fold_into_soft_prompt
from prompt_tuning.models.injection import Injection

_EPSILON = 1e-5  # of the layer norm, as in the paper's code


class ResidualPrompt(MethodModule):
    """A prompt of `length` virtual tokens, each with a residual from a shared network.

    The scale of the layer norm is initialized to zero, so that training starts from the
    initializer's prompt; in the paper's code it is one.

    Attributes:
      length: number of virtual tokens.
      embed_dim: the frozen model's `embed_dim`.
      bottleneck: width of the network's hidden layer.
      initializer: initializes P.

    Raises:
      UserError: the length or the bottleneck isn't positive.
    """

    length: int
    embed_dim: int
    bottleneck: int
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        check_prompt_length(self.length)
        hint = " (the paper's code has 800)"
        at_least(1, {"residual_prompt.bottleneck": self.bottleneck}, hint)
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt, the same for every batch."""
        del batch
        shape = (self.length, self.embed_dim)
        prompt = self.param("prompt", self.initializer, shape, jnp.float32)
        hidden = nn.relu(nn.Dense(self.bottleneck, name="down")(prompt))
        norm = nn.LayerNorm(_EPSILON, scale_init=nn.initializers.zeros, name="norm")
        added = norm(nn.Dense(self.embed_dim, name="up")(hidden))
        return Injection(encoder_prompt=(prompt + added)[None])

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the prompt with its residual added, as a `SoftPrompt`."""
        return fold_into_soft_prompt(self, trained)


@method
def residual_prompt(
    base: FrozenModel, length: int, initializer: MakeInitializer, bottleneck: int = 800
) -> ResidualPrompt:
    """A soft prompt with a residual from a bottleneck network."""
    return ResidualPrompt(
        length=length,
        embed_dim=base.config.embed_dim,
        bottleneck=bottleneck,
        initializer=initializer(base),
    )
