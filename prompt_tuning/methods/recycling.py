"""Prompts of one model used with another (prompt recycling; Lester et al., 2022, section 3).

Two models with one vocabulary embed the same pieces as E [pieces, embed] and E' [pieces, embed'].
A prompt P [prompt, embed] becomes P' [prompt, embed'] without training:

    v2v-lin:   P' = P Y,   Y = argmin ||E Y - E'||
    lin-comb:  P' = X E',  X = argmin ||X E - P||

v2v-lin maps every vector as it maps the vocabulary's. lin-comb writes a prompt's vectors as
combinations of embeddings (the smallest ones, as there are more pieces than features) and combines
the other model's.
"""

import numpy as np
from jaxtyping import Array, Float, Float32

from prompt_tuning.errors import UserError, did_you_mean

VARIANTS = ("v2v-lin", "lin-comb")


def recycle(
    prompt: Float[Array | np.ndarray, "prompt embed"],
    source: Float[Array | np.ndarray, "pieces embed"],
    target: Float[Array | np.ndarray, "pieces other_embed"],
    variant: str = "v2v-lin",
) -> Float32[np.ndarray, "prompt other_embed"]:
    """Returns a prompt for another model.

    Args:
      prompt: of the source model.
      source: the source model's embeddings.
      target: the target model's, of the same pieces.
      variant: one of `VARIANTS`.

    Raises:
      UserError: the variant is unknown.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"The variant of recycling is '{variant}'; expected {' or '.join(VARIANTS)}."
            f"{did_you_mean(variant, VARIANTS)}"
        )
    prompt, source, target = (np.asarray(each, np.float32) for each in (prompt, source, target))
    if variant == "v2v-lin":
        return prompt @ np.linalg.lstsq(source, target)[0]
    return np.linalg.lstsq(source.T, prompt.T)[0].T @ target
