"""Grows a trained T5 into a larger one with the same function, for further training.

Net2Net's idea (Chen et al., 2016, arXiv 1511.05641) for a transformer with pre-norm residuals: new
units write nothing at first, since their kernels into the residual stream are zero, and read with
random kernels, so that their gradients aren't zero. New layers come last.
"""

import math

import jax
import jax.numpy as jnp

from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import Params

_SILENT = ("embedding", "out/kernel", "wo/kernel")
"""What writes into the residual stream: zero wherever it is new."""


def grow(params: Params, small: T5Config, fresh: Params, large: T5Config) -> Params:
    """Returns weights of the shape of `large` with the function of `params`.

    Args:
      params: the trained weights, of the shape of `small`.
      small: their config, no larger than `large` along any axis.
      fresh: random weights of the shape of `large`: what is new is taken from them.
      large: the config to grow to; its vocabulary and position buckets are those of `small`.
    """
    # A norm's mean is now taken over more positions, of which the new ones are zero.
    shrink = math.sqrt(small.embed_dim / large.embed_dim)

    def grow_leaf(path, old, new):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith(_SILENT):
            new = jnp.zeros_like(new)
        if name.endswith("query/kernel"):
            # A head's new dimensions add nothing to its logits, whatever its keys say there.
            new = new.at[: old.shape[0], :, : small.num_heads, small.head_dim :].set(0.0)
        if name.endswith("norm/scale"):
            old = old * shrink
        place = tuple(slice(0, length) for length in old.shape)
        return new.at[place].set(old.astype(new.dtype))

    return jax.tree_util.tree_map_with_path(grow_leaf, params, fresh)
