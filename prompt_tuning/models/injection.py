"""The one place where a method and the model meet.

A method turns its trained numbers into an `Injection`; the model reads the slots it finds filled.
Neither imports the other. A new way of reaching into the model is one more field here, and one
place in the model that reads it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Injection:
    """What a method gives to the frozen model; every slot is optional.

    Attributes:
      encoder_prompt: vectors put before the encoder's embedded input (Lester et al., 2021). A
        leading axis of 1 serves the whole batch with one prompt; an axis of `batch` gives every
        example its own.
      encoder_prompt_mask: False where a shorter prompt of a mixed batch is filled up; every prompt
        position is visible if it is None.
    """

    encoder_prompt: Float[Array, "#batch prompt embed"] | None = None
    encoder_prompt_mask: Bool[Array, "#batch prompt"] | None = None


def prepend_prompt(
    embedded: Float[Array, "batch source embed"],
    mask: Bool[Array, "batch source"],
    injection: Injection,
) -> tuple[Float[Array, "batch extended embed"], Bool[Array, "batch extended"]]:
    """Returns `[P; X]` and its mask: the prompt takes positions 0 to p-1 (section 2 of the paper).

    Relative positions are those of the concatenated sequence.
    """
    prompt = injection.encoder_prompt
    if prompt is None:
        return embedded, mask
    batch = embedded.shape[0]
    prompt_mask = injection.encoder_prompt_mask
    if prompt_mask is None:
        prompt_mask = jnp.ones(prompt.shape[:2], bool)
    prompt = jnp.broadcast_to(prompt, (batch, *prompt.shape[1:])).astype(embedded.dtype)
    prompt_mask = jnp.broadcast_to(prompt_mask, (batch, prompt.shape[1]))
    return jnp.concatenate([prompt, embedded], 1), jnp.concatenate([prompt_mask, mask], 1)


def stack_injections(
    injections: Sequence[Injection],
) -> tuple[list[Array], Callable[[Sequence[Array]], Injection]]:
    """Returns arrays with a leading axis to be mapped over, and what makes injections of them.

        arrays, injection_of = stack_injections(injections)
        jax.vmap(lambda arrays: model(injection_of(arrays)))(arrays)

    Prompts are filled up to the longest, on their left: the distance of each position to the
    input, which is all that T5 knows of places, stays what it was. All else must have one shape.

    Raises:
      ValueError: slots are filled in one and empty in another, or differ in shape.
    """
    lengths = [
        0 if injection.encoder_prompt is None else injection.encoder_prompt.shape[1]
        for injection in injections
    ]
    if len(set(lengths)) > 1:
        longest = max(lengths)
        injections = [_with_prompt_length(injection, longest) for injection in injections]
    flat, structures = zip(*map(jax.tree.flatten, injections), strict=True)
    if len(set(structures)) > 1:
        raise ValueError(f"Injections with different slots can't be stacked: {set(structures)}.")
    stacked = [jnp.stack(leaves) for leaves in zip(*flat, strict=True)]
    return stacked, functools.partial(jax.tree.unflatten, structures[0])


def _with_prompt_length(injection: Injection, length: int) -> Injection:
    prompt = injection.encoder_prompt
    if prompt is None:
        raise ValueError("An injection without a prompt can't be stacked with one that has one.")
    mask = injection.encoder_prompt_mask
    mask = jnp.ones(prompt.shape[:2], bool) if mask is None else mask
    missing = length - prompt.shape[1]
    return dataclasses.replace(
        injection,
        encoder_prompt=jnp.pad(prompt, ((0, 0), (missing, 0), (0, 0))),
        encoder_prompt_mask=jnp.pad(mask, ((0, 0), (missing, 0))),
    )
