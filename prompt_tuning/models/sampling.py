"""Temperature, top-k and top-p: restricts a distribution over tokens before sampling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def restrict(
    logits: Float[Array, "batch vocab"], *, temperature: float, top_k: int, top_p: float
) -> Float[Array, "batch vocab"]:
    """Returns logits divided by `temperature`, with minus infinity for excluded tokens.

    Args:
      logits: of the next token.
      temperature: above 0; 1 leaves the distribution unchanged.
      top_k: keep the k likeliest tokens (Fan et al., 2018); 0 keeps all.
      top_p: keep the smallest set of likeliest tokens whose probability reaches p (Holtzman et
        al., 2020); 1 keeps all. It applies after top-k.
    """
    logits = logits / temperature
    if top_k:
        least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1.0:
        descending = -jnp.sort(-logits, axis=-1)
        probabilities = jax.nn.softmax(descending, axis=-1)
        likelier = jnp.cumsum(probabilities, axis=-1) - probabilities
        least = jnp.min(jnp.where(likelier < top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits
