"""Prompts mixed from those of other tasks (ATTEMPT; Asai et al., 2022, section 3.2).

    P = P_own + sum_j a_j P_j

The sum is over the source prompts and, last, P_own. The sources are constants, stored in the
collection "sources" of a method's variables (`base.bind`). P_own and the parameters that determine
the weights a are trained. In `AttentionMixedPrompt`, the paper's method, the weights depend on each
input by attention, which the frozen model computes (`models/prompt_mixture.py`). In `MixedPrompt`
they are the same for all inputs, so it folds into a `SoftPrompt`.
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
    """Base class of both methods: prompts of `length` virtual tokens.

    Attributes:
      length: number of virtual tokens of the prompt and of each source.
      embed_dim: the frozen model's `embed_dim`.
      sources: number of source prompts.
      initializer: initializes P_own.
      source_initializer: returns the source prompts, [sources, length, embed_dim].
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
        """Returns P_own and the source prompts."""
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
      width: size of the attention's hidden layer (the paper's r, 100).
      temperature: softmax temperature (the paper's is e * embed_dim).

    Raises:
      UserError: the length, number of sources, width or temperature isn't positive.
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
        """Returns the components of the mixture; the model mixes them for each input."""
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
    """A mixed prompt shared by all inputs: a is the softmax of [sources + 1] trained logits.

    Raises:
      UserError: the length or the number of sources isn't positive.
    """

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt, the same for every batch."""
        del batch
        own, sources = self.prompts()
        logits = self.param("logits", nn.initializers.zeros, (self.sources + 1,))
        prompts = jnp.concatenate([sources, own[None]])
        return Injection(
            encoder_prompt=(own + jnp.tensordot(jax.nn.softmax(logits), prompts, 1))[None]
        )

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the mixed prompt as a `SoftPrompt`."""
        return fold_into_soft_prompt(self, trained)


@method
def mixed_prompt(
    base: FrozenModel, sources: HashedFiles[Sequence[str]], initializer: MakeInitializer
) -> MixedPrompt:
    """A mixture of the prompts in `sources` and a trained one, shared by all inputs."""
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
    """A mixture by attention to each input (ATTEMPT); `temperature` defaults to e * embed_dim."""
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
