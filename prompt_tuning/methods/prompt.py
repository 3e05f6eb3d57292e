"""Prompt tuning: a soft prompt added to the frozen model's input (Lester et al. 2021, section 2).

The embedded input X_e of shape [source, embed] becomes [P_e; X_e] of shape
[prompt + source, embed]; only P_e is trained. The prompt is one [prompt, embed] parameter shared by
all examples. `injection.add_prompt` prepends it in the encoder, so it takes positions 0 to
prompt - 1 and every position attends to it. This is the paper's placement; the others put the same
vectors elsewhere. Initial values are in `initializers.py`, file formats in
`prompt_tuning.checkpoints.adapters.prompt_files`.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from prompt_tuning.errors import UserError, at_least, did_you_mean
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import Initializer, MakeInitializer, random_uniform
from prompt_tuning.models.injection import Injection

PLACEMENTS = ("before", "after", "around", "decoder", "encoder_and_decoder")
"""Before the encoder's input; after each input's last token; the first half before and the rest
after; before the decoder's input; before both inputs, with separate vectors."""


ATTENTION = ("input->prompt", "prompt->input", "prompt->prompt", "prompt->prompt;causal")
"""Who may attend to whom in the encoder, as in the paper's code; the input always to itself."""
_ALL = ATTENTION[:3]


class SoftPrompt(MethodModule):
    """A prompt of `length` virtual tokens, each a trainable vector as wide as an embedding.

    Attributes:
      length: number of virtual tokens, at least 1.
      embed_dim: the frozen model's `embed_dim`.
      placement: one of `PLACEMENTS`; "encoder_and_decoder" trains [length, embed_dim] for each.
      attention: those of `ATTENTION` that the encoder's self-attention allows. A virtual token
        always attends to itself. Only for a prompt before the input.
      initializer: returns the initial [length, embed_dim] values; see `initializers.py`.

    The parameter is float32 for any dtype of the model: Adafactor's updates are far below
    bfloat16's resolution at the magnitude that trained prompts reach.

    Raises:
      UserError: the length isn't positive, or the placement or an attention is unknown.
    """

    length: int
    embed_dim: int
    placement: str = "before"
    attention: tuple[str, ...] = _ALL
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        check_prompt_length(self.length)
        if self.placement not in PLACEMENTS:
            raise UserError(
                f"A prompt's placement is '{self.placement}'; expected {', '.join(PLACEMENTS)}."
                f"{did_you_mean(self.placement, PLACEMENTS)}"
            )
        if self.placement == "around" and self.length < 2:
            raise UserError(
                "A prompt of one virtual token can't be placed around the input; set "
                "PROMPT_LENGTH to at least 2, or another placement."
            )
        for each in self.attention:
            if each not in ATTENTION:
                raise UserError(
                    f"A prompt's attention has '{each}'; expected {', '.join(ATTENTION)}."
                    f"{did_you_mean(each, ATTENTION)}"
                )
        if self.placement != "before" and set(self.attention) != set(_ALL):
            raise UserError(
                f"The attention of a prompt can only be restricted before the input; its placement "
                f"is '{self.placement}'."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt, the same for every batch."""
        del batch
        shape = (self.length, self.embed_dim)
        prompt = self.param("prompt", self.initializer, shape, jnp.float32)[None]
        match self.placement:
            case "before":
                return Injection(encoder_prompt=prompt, encoder_prompt_attention=self._attention())
            case "after":
                return Injection(encoder_suffix=prompt)
            case "around":
                half = -(-self.length // 2)
                return Injection(encoder_prompt=prompt[:, :half], encoder_suffix=prompt[:, half:])
            case "decoder":
                return Injection(decoder_prompt=prompt)
        of_decoder = self.param("decoder_prompt", self.initializer, shape, jnp.float32)[None]
        return Injection(encoder_prompt=prompt, decoder_prompt=of_decoder)

    def _attention(self) -> Bool[Array, "1 queries queries"] | None:
        """Returns who sees whom, the input last; None if all see all."""
        if set(self.attention) == set(_ALL):
            return None
        among = jnp.eye(self.length, dtype=bool)
        if ATTENTION[3] in self.attention:
            among = jnp.tri(self.length, dtype=bool)
        elif ATTENTION[2] in self.attention:
            among = jnp.ones_like(among)
        allowed = jnp.pad(among, (0, 1))
        allowed = allowed.at[:-1, -1].set(ATTENTION[1] in self.attention)
        allowed = allowed.at[-1, :-1].set(ATTENTION[0] in self.attention)
        return allowed.at[-1, -1].set(True)[None]


@method
def soft_prompt(
    base: FrozenModel,
    length: int,
    initializer: MakeInitializer,
    placement: str = "before",
    attention: Sequence[str] = _ALL,
) -> SoftPrompt:
    """A soft prompt of `length` virtual tokens (prompt tuning); see `PLACEMENTS`, `ATTENTION`."""
    return SoftPrompt(
        length=length,
        embed_dim=base.config.embed_dim,
        placement=placement,
        attention=tuple(attention),
        initializer=initializer(base),
    )


def check_prompt_length(length: int) -> None:
    """Raises UserError unless a prompt's length is positive."""
    hint = "; set PROMPT_LENGTH to the number of virtual tokens (the paper: 100)"
    at_least(1, {"The prompt length": length}, hint)


def soft_prompt_array(trained: Trained) -> Float[Array, "prompt embed"]:
    """Returns the prompt in the variables of a `SoftPrompt`."""
    return trained["params"]["prompt"]


def soft_prompt_variables(prompt: Float[Array | np.ndarray, "prompt embed"]) -> Trained:
    """Returns the variables of a `SoftPrompt` with this prompt, such as one read from a file."""
    return {"params": {"prompt": jnp.asarray(prompt, jnp.float32)}}


def fold_into_soft_prompt(
    method: Any, trained: Trained, batch: Batch = MappingProxyType({})
) -> tuple[Method, Trained]:
    """Returns the `SoftPrompt` equivalent to a method that only injects an encoder prompt.

    Args:
      method: the method.
      trained: its variables.
      batch: one example to compute the prompt for, if the prompt depends on it.
    """
    prompt = method.apply(trained, batch).encoder_prompt[0]
    # parent=None: otherwise Flax would register it as a submodule of `method`.
    folded: Any = SoftPrompt(length=prompt.shape[0], embed_dim=prompt.shape[1], parent=None)
    return folded, soft_prompt_variables(prompt)
