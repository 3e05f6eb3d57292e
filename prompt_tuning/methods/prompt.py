"""Prompt tuning: a soft prompt before the encoder's input (Lester et al. 2021, section 2).

The embedded input X_e of shape [source, embed] becomes [P_e; X_e] of shape
[prompt + source, embed], and P_e is all that is trained. The prompt is one [prompt, embed]
parameter shared by every example; the frozen model prepends it (`models/t5.py`), so it takes
positions 0 to prompt - 1 and every position sees it. Initial values: `initializers.py`. Files:
`prompt_tuning.checkpoints.prompt_files`.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Batch, MethodModule, Trained
from prompt_tuning.methods.initializers import Initializer, random_uniform
from prompt_tuning.models.injection import Injection


class SoftPrompt(MethodModule):
    """A prompt of `length` virtual tokens, each a trained vector as wide as an embedding.

    Attributes:
      length: number of virtual tokens, at least 1.
      embed_dim: the frozen model's `embed_dim`.
      initializer: gives the first [length, embed_dim] values; see `initializers.py`.

    The parameter is float32 whatever the model's dtype: Adafactor's steps are far smaller than
    bfloat16 resolves beside the values a trained prompt reaches.

    Raises:
      UserError: the length isn't positive.
    """

    length: int
    embed_dim: int
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        if self.length < 1:
            raise UserError(
                f"The prompt length is {self.length}; it must be at least 1. "
                "Set PROMPT_LENGTH to the number of virtual tokens (the paper's default is 100)."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt; it is the same for every batch."""
        del batch
        prompt = self.param("prompt", self.initializer, (self.length, self.embed_dim), jnp.float32)
        return Injection(encoder_prompt=prompt[None])


def soft_prompt_array(trained: Trained) -> Float[Array, "prompt embed"]:
    """Returns the prompt itself out of the variables of a `SoftPrompt`."""
    return trained["params"]["prompt"]


def soft_prompt_variables(prompt: Float[Array | np.ndarray, "prompt embed"]) -> Trained:
    """Returns the variables of a `SoftPrompt` that holds this prompt, such as one from a file."""
    return {"params": {"prompt": jnp.asarray(prompt, jnp.float32)}}
