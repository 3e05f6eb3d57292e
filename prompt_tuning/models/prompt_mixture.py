"""A prompt mixed of several, or picked from them, for each input.

It depends on the input's embeddings, which only the model has. So the method provides the parts,
and the model mixes them after embedding the input (ATTEMPT; Asai et al., 2022, section 3.2) or
picks one (SMoP; Choi et al., 2023, section 2).
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from prompt_tuning.models.slots import AnyArray

_EPSILON = 1e-5  # of the layer norm, as in the paper's code


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PromptMixture:
    """The parts of the prompt

        x = max over an input's embedded tokens,  p_j = max over the vectors of prompt j
        h = layer_norm(silu(x @ down) @ up),      a = softmax_j(p_j . h / temperature)
        prompt = own + sum_j a_j P_j

    where j runs over the sources and then the task's own prompt. A batch axis of 1 serves the whole
    batch. Unlike in the paper's code, the maximum excludes padding, so that an answer doesn't
    depend on the rest of the batch.

    Attributes:
      own: the task's own prompt.
      sources: prompts of other tasks.
      down, up: projections of the attention network.
      norm_scale, norm_bias: parameters of its layer norm.
      temperature: the higher, the more evenly prompts are mixed.
    """

    own: Float[AnyArray, "#batch prompt embed"]
    sources: Float[AnyArray, "#batch sources prompt embed"]
    down: Float[AnyArray, "#batch embed width"]
    up: Float[AnyArray, "#batch width embed"]
    norm_scale: Float[AnyArray, "#batch embed"]
    norm_bias: Float[AnyArray, "#batch embed"]
    temperature: float = field(metadata={"static": True})

    @property
    def length(self) -> int:
        """The number of virtual tokens."""
        return self.own.shape[1]

    def prompt(
        self,
        embedded: Float[Array, "batch source embed"],
        mask: Bool[Array, "batch source"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch prompt embed"]:
        """Returns the prompt of each input, in float32; without noise."""
        del key
        prompts = self._prompts()
        weights = self.weights(embedded, mask)
        return self.own + jnp.sum(weights[:, :, None, None] * prompts, axis=1)

    def weights(
        self, embedded: Float[Array, "batch source embed"], mask: Bool[Array, "batch source"]
    ) -> Float[Array, "batch prompts"]:
        """Returns the weight of each prompt, the task's own last."""
        seen = jnp.where(mask[..., None], embedded.astype(jnp.float32), -jnp.inf)
        # A row that only pads the batch has no tokens.
        pooled = jnp.where(mask.any(axis=1)[:, None], seen.max(axis=1), 0.0)
        hidden = jax.nn.silu(pooled[:, None] @ self.down) @ self.up
        hidden = jax.nn.standardize(hidden, axis=-1, epsilon=_EPSILON)
        hidden = hidden * self.norm_scale[:, None] + self.norm_bias[:, None]
        keys = self._prompts().max(axis=2)
        scores = jnp.sum(keys * hidden, axis=-1) / self.temperature
        return jax.nn.softmax(scores, axis=-1)

    def _prompts(self) -> Float[Array, "#batch prompts prompt embed"]:
        return jnp.concatenate([self.sources, self.own[:, None]], axis=1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RoutedPrompts:
    """Prompts of which each input gets one: p_c P_c, p = softmax(x @ router), c = argmax_j p_j.

    x is the mean of the input's embedded tokens. A batch axis of 1 serves the whole batch.

    Attributes:
      prompts: the prompts P_j.
      router: the projection to their logits.
      noise: in training, each logit is multiplied by 1 + noise * e, with e normal.
    """

    prompts: Float[AnyArray, "#batch prompts prompt embed"]
    router: Float[AnyArray, "#batch embed prompts"]
    noise: float = field(default=0.0, metadata={"static": True})

    @property
    def length(self) -> int:
        """The number of virtual tokens."""
        return self.prompts.shape[2]

    def prompt(
        self,
        embedded: Float[Array, "batch source embed"],
        mask: Bool[Array, "batch source"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch prompt embed"]:
        """Returns the prompt of each input, in float32; with noise if there is a key."""
        seen = jnp.where(mask[..., None], embedded.astype(jnp.float32), 0.0)
        count = jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]  # a row may only pad the batch
        logits = jnp.sum((seen.sum(axis=1) / count)[:, :, None] * self.router, axis=1)
        if key is not None:
            logits *= 1 + self.noise * jax.random.normal(key, logits.shape)
        shares = jax.nn.softmax(logits, axis=-1)
        picked = jax.nn.one_hot(shares.argmax(axis=-1), shares.shape[-1]) * shares
        return jnp.sum(picked[:, :, None, None] * self.prompts, axis=1)
