"""Several injections in one batch, or one more axis of them to be mapped over.

Slots of different sizes are filled up: prompts and prefixes on their left and suffixes on their
right, with what fills them hidden; low ranks and bottlenecks with zeros, which add nothing. Every
example computes what it would alone. On the left, because the distance of each position to the
input, which is all that T5 knows of places, stays what it was.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from prompt_tuning.models.injection import Injection
from prompt_tuning.models.slots import Bottleneck, KeyValue, LowRank

# Vectors with a mask beside them: the slot's field, its mask's, and on which side it is filled up.
_VECTORS = (
    ("encoder_prompt", "encoder_prompt_mask", "left"),
    ("encoder_suffix", "encoder_suffix_mask", "right"),
    ("decoder_prompt", "decoder_prompt_mask", "left"),
)
# The block whose prefix stands before them.
_SELF_ATTENTION = {
    "encoder_prompt": "encoder/attention",
    "encoder_suffix": "",
    "decoder_prompt": "decoder/self_attention",
}
_BY_NAME = ("prefixes", "low_rank", "scales", "bottlenecks")


def stack_injections(
    injections: Sequence[Injection],
) -> tuple[list[Array], Callable[[Sequence[Array]], Injection]]:
    """Returns arrays with a leading axis to be mapped over, and what makes injections of them.

        arrays, injection_of = stack_injections(injections)
        jax.vmap(lambda arrays: model(injection_of(arrays)))(arrays)

    Raises:
      ValueError: slots are filled in one and empty in another, or can't be filled up.
    """
    flat, structure = _alike(injections)
    stacked = [jnp.stack(leaves) for leaves in zip(*flat, strict=True)]
    return stacked, functools.partial(jax.tree.unflatten, structure)


def batch_injections(injections: Sequence[Injection]) -> Injection:
    """Returns one injection for a batch whose examples have one of `injections` each.

    Args:
      injections: each with a batch axis of 1, or of its share of the examples.

    Raises:
      ValueError: as `stack_injections`; or one has weights, which all examples share.
    """
    if any(injection.weights for injection in injections):
        raise ValueError("Examples of a batch can't have weights of their own.")
    flat, structure = _alike(injections)
    # Slots of layers have their batch axis after that of the layers.
    axes = jax.tree.leaves(
        dataclasses.replace(
            jax.tree.unflatten(structure, [0] * structure.num_leaves),
            **{name: jax.tree.map(lambda _: 1, getattr(injections[0], name)) for name in _BY_NAME},
        )
    )
    joined = [
        jnp.concatenate(leaves, axis=axis)
        for leaves, axis in zip(zip(*flat, strict=True), axes, strict=True)
    ]
    return jax.tree.unflatten(structure, joined)


def _alike(injections: Sequence[Injection]) -> tuple[list[list[Array]], Any]:
    """Returns the leaves of injections of one structure, their sizes made equal."""
    filled = _filled_up(injections)
    flat, structures = zip(*map(jax.tree.flatten, filled), strict=True)
    if len(set(structures)) > 1:
        raise ValueError(f"Injections with different slots can't be stacked: {set(structures)}.")
    return list(flat), structures[0]


def _filled_up(injections: Sequence[Injection]) -> list[Injection]:
    changes: list[dict[str, Any]] = [{} for _ in injections]
    for slot, mask, side in _VECTORS:
        lengths = [_length(getattr(injection, slot)) for injection in injections]
        masked = [getattr(injection, mask) is not None for injection in injections]
        if len(set(lengths)) == 1 and len(set(masked)) == 1:
            continue
        if 0 in lengths:
            raise ValueError(f"An injection without {slot} can't be stacked with one that has it.")
        if any(_SELF_ATTENTION[slot] in injection.prefixes for injection in injections):
            raise ValueError(
                f"Injections with prefixes and {slot} of several lengths can't be stacked: what "
                "fills them up would come between the two."
            )
        for change, injection in zip(changes, injections, strict=True):
            vectors, visible = getattr(injection, slot), getattr(injection, mask)
            visible = jnp.ones(vectors.shape[:2], bool) if visible is None else visible
            change[slot] = _padded(vectors, 1, max(lengths), side)
            change[mask] = _padded(visible, 1, max(lengths), side)
    for field, fill in (("low_rank", _fill_ranks), ("bottlenecks", _fill_widths)):
        names = set().union(*(getattr(injection, field) for injection in injections))
        if names:
            filled = fill([getattr(injection, field) for injection in injections])
            for change, slots in zip(changes, filled, strict=True):
                change[field] = slots
    _fill_prefixes(injections, changes)
    return [
        dataclasses.replace(injection, **change)
        for injection, change in zip(injections, changes, strict=True)
    ]


def _fill_prefixes(injections: Sequence[Injection], changes: list[dict[str, Any]]) -> None:
    names = set().union(*(injection.prefixes for injection in injections))
    for name in sorted(names):
        lengths = [injection.prefix_length(name) for injection in injections]
        masked = [name in injection.prefix_masks for injection in injections]
        if 0 in lengths or (len(set(lengths)) == 1 and len(set(masked)) == 1):
            continue  # alike, or so unlike that comparing the structures tells it
        for change, injection in zip(changes, injections, strict=True):
            prefix = injection.prefixes[name]
            batch = prefix.key.shape[1]
            visible = jnp.broadcast_to(injection.prefix_mask(name), (batch, prefix.key.shape[2]))
            longer = KeyValue(
                key=_padded(prefix.key, 2, max(lengths), "left"),
                value=_padded(prefix.value, 2, max(lengths), "left"),
            )
            change["prefixes"] = {**change.get("prefixes", injection.prefixes), name: longer}
            change["prefix_masks"] = {
                **change.get("prefix_masks", injection.prefix_masks),
                name: _padded(visible, 1, max(lengths), "left"),
            }


def _fill_ranks(slots: Sequence[Mapping[str, LowRank]]) -> list[dict[str, LowRank]]:
    ranks = {
        name: max(each[name].up.shape[2] for each in slots if name in each)
        for name in set().union(*slots)
    }
    return [
        {
            name: LowRank(
                down=_padded(slot.down, slot.down.ndim - 1, ranks[name], "right"),
                up=_padded(slot.up, 2, ranks[name], "right"),
            )
            for name, slot in each.items()
        }
        for each in slots
    ]


def _fill_widths(slots: Sequence[Mapping[str, Bottleneck]]) -> list[dict[str, Bottleneck]]:
    widths = {
        name: max(each[name].down_bias.shape[-1] for each in slots if name in each)
        for name in set().union(*slots)
    }
    return [
        {
            name: dataclasses.replace(
                slot,
                down=_padded(slot.down, 3, widths[name], "right"),
                down_bias=_padded(slot.down_bias, 2, widths[name], "right"),
                # Whatever the nonlinearity makes of 0, nothing is added.
                up=_padded(slot.up, 2, widths[name], "right"),
            )
            for name, slot in each.items()
        }
        for each in slots
    ]


def _length(vectors: Array | None) -> int:
    return 0 if vectors is None else vectors.shape[1]


def _padded(x: Array, axis: int, length: int, side: str) -> Array:
    missing = length - x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (missing, 0) if side == "left" else (0, missing)
    return jnp.pad(x, widths) if missing else x
