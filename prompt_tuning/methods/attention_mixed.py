"""Prompts mixed out of those of other tasks (ATTEMPT; Asai et al., 2022, section 3.2).

    P = P_own + sum_j a_j P_j

over the source prompts and, as the last, P_own. The sources are constants, the collection
"sources" of a method's variables (`base.bind`); P_own and what the shares a come from are trained.
In `AttentionMixedPrompt`, the paper's, they come from attention to each input, for which the frozen
model is given the parts (`models/prompt_mixture.py`). In `MixedPrompt` they are the same for all
inputs, so that it folds into a `SoftPrompt`.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from prompt_tuning.errors import UserError, at_least
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import (
    Initializer,
    MakeInitializer,
    from_array,
    random_uniform,
)
from prompt_tuning.methods.prompt import check_prompt_length, fold_into_soft_prompt
from prompt_tuning.models.injection import Injection, PromptMixture
from prompt_tuning.settings import HashedFiles


class _Mixed(MethodModule):
    """What the two have in common: prompts of `length` virtual tokens.

    Attributes:
      length: number of virtual tokens, of the sources too.
      embed_dim: the frozen model's `embed_dim`.
      sources: how many source prompts there are.
      initializer: gives the first values of P_own.
      source_initializer: gives the source prompts, [sources, length, embed_dim].
    """

    length: int
    embed_dim: int
    sources: int
    initializer: Initializer = random_uniform()
    source_initializer: Any = nn.initializers.normal(1.0)

    def __post_init__(self):
        check_prompt_length(self.length)
        if self.sources < 1:
            raise UserError(
                "There are no source prompts to mix; set SOURCE_PROMPTS to their files."
            )
        super().__post_init__()

    def prompts(self) -> tuple[Float[Array, "prompt embed"], Float[Array, "sources prompt embed"]]:
        """Returns P_own and the sources."""
        shape = (self.length, self.embed_dim)
        own = self.param("prompt", self.initializer, shape, jnp.float32)
        sources = self.variable(
            "sources",
            "prompts",
            lambda: self.source_initializer(
                self.make_rng("params"), (self.sources, *shape), jnp.float32
            ),
        )
        return own, sources.value


class AttentionMixedPrompt(_Mixed):
    """A prompt mixed for each input by attention to its embedded tokens; see `PromptMixture`.

    Attributes:
      width: of the attention's hidden layer (the paper's r, 100).
      temperature: of its softmax (the paper's is e times embed_dim).

    Raises:
      UserError: a length, number, width or temperature isn't positive.
    """

    width: int = 100
    temperature: float = 1.0

    def __post_init__(self):
        at_least(1, {"attention_mixed_prompt.width": self.width})
        if self.temperature <= 0:
            raise UserError(
                f"attention_mixed_prompt.temperature is {self.temperature}; it must be above 0."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the parts of the mixture; the model mixes them for each input."""
        del batch
        own, sources = self.prompts()
        kernel, embed_dim = nn.initializers.lecun_normal(), self.embed_dim
        mixture = PromptMixture(
            own=own[None],
            sources=sources[None],
            down=self.param("down", kernel, (embed_dim, self.width))[None],
            up=self.param("up", kernel, (self.width, embed_dim))[None],
            norm_scale=self.param("norm_scale", nn.initializers.ones, (embed_dim,))[None],
            norm_bias=self.param("norm_bias", nn.initializers.zeros, (embed_dim,))[None],
            temperature=self.temperature,
        )
        return Injection(encoder_prompt_mixture=mixture)


class MixedPrompt(_Mixed):
    """A prompt mixed alike for every input: a is the softmax of [sources + 1] trained logits.

    Raises:
      UserError: the length or the number of sources isn't positive.
    """

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt; it is the same for every batch."""
        del batch
        own, sources = self.prompts()
        logits = self.param("logits", nn.initializers.zeros, (self.sources + 1,))
        prompts = jnp.concatenate([sources, own[None]])
        return Injection(
            encoder_prompt=(own + jnp.tensordot(jax.nn.softmax(logits), prompts, 1))[None]
        )

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the mixed prompt, without its parts."""
        return fold_into_soft_prompt(self, trained)


@method
def mixed_prompt(
    base: FrozenModel, sources: HashedFiles[Sequence[str]], initializer: MakeInitializer
) -> MixedPrompt:
    """A mixture of the prompts in `sources` and a trained one, the same for every input."""
    prompts = base.source_prompts(sources)
    return MixedPrompt(
        length=prompts.shape[1],
        embed_dim=prompts.shape[2],
        sources=prompts.shape[0],
        initializer=initializer(base),
        source_initializer=from_array(prompts),
    )


@method
def attention_mixed_prompt(
    base: FrozenModel,
    sources: HashedFiles[Sequence[str]],
    initializer: MakeInitializer,
    width: int = 100,
    temperature: float | None = None,
) -> AttentionMixedPrompt:
    """A mixture by attention over each input (ATTEMPT); `temperature` None: e times the width."""
    prompts = base.source_prompts(sources)
    return AttentionMixedPrompt(
        length=prompts.shape[1],
        embed_dim=prompts.shape[2],
        sources=prompts.shape[0],
        width=width,
        temperature=math.e * prompts.shape[2] if temperature is None else temperature,
        initializer=initializer(base),
        source_initializer=from_array(prompts),
    )
