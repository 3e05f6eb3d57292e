"""A prompt mixed from several, for each input (ATTEMPT; Asai et al., 2022, section 3.2).

The mixture depends on the input's embeddings, which only the model has. So the method provides the
parts, and the model mixes them after embedding the input.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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

    def prompt(
        self, embedded: Float[Array, "batch source embed"], mask: Bool[Array, "batch source"]
    ) -> Float[Array, "batch prompt embed"]:
        """Returns the prompt of each input, in float32."""
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
