"""SMoP: several short prompts, of which each input gets one (Choi et al., 2023, section 2).

    p = softmax(x R),  c = argmax_j p_j,  P = p_c P_c

x [embed] is the mean of the input's embeddings. The prompts P_j and the router R [embed, prompts]
are trained; the model picks the prompt after embedding the input (`models/prompt_mixture.py`). In
training, each logit is multiplied by 1 + noise * e with e normal, so that all prompts are picked
(section 2.3). R is initialized to an orthogonal matrix, as in the paper's code.
"""

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import UserError, at_least
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import Initializer, MakeInitializer, random_uniform
from prompt_tuning.methods.prompt import check_prompt_length
from prompt_tuning.models.injection import Injection, RoutedPrompts


class SMoP(MethodModule):
    """Prompts of `length` virtual tokens and their router: prompts * (length + 1) * embed values.

    Attributes:
      length: number of virtual tokens of each prompt (the paper: 5).
      embed_dim: the frozen model's `embed_dim`.
      prompts: number of prompts (the paper: 4).
      noise: standard deviation of the router's noise in training, relative to its logits.
      initializer: initializes all prompts at once, [prompts * length, embed].

    Raises:
      UserError: a size isn't positive, or the noise is negative.
    """

    length: int
    embed_dim: int
    prompts: int = 4
    noise: float = 1.0
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        check_prompt_length(self.length)
        at_least(1, {"smop.prompts": self.prompts}, " (the paper's is 4)")
        if self.noise < 0:
            raise UserError(f"smop.noise is {self.noise}; it must be 0 or above.")
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the prompts and the router; the model picks a prompt for each input."""
        del batch
        shape = (self.prompts * self.length, self.embed_dim)
        prompts = self.param("prompts", self.initializer, shape, jnp.float32)
        orthogonal = nn.initializers.orthogonal()
        router = self.param("router", orthogonal, (self.embed_dim, self.prompts), jnp.float32)
        return Injection(
            encoder_prompt_mixture=RoutedPrompts(
                prompts=prompts.reshape(1, self.prompts, self.length, self.embed_dim),
                router=router[None],
                noise=self.noise,
            )
        )


@method
def smop(
    base: FrozenModel,
    length: int,
    initializer: MakeInitializer,
    prompts: int = 4,
    noise: float | int = 1.0,
) -> SMoP:
    """A sparse mixture of `prompts` prompts of `length` virtual tokens (SMoP)."""
    return SMoP(
        length=length,
        embed_dim=base.config.embed_dim,
        prompts=prompts,
        noise=float(noise),
        initializer=initializer(base),
    )
