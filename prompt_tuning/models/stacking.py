"""Combines injections: one for each example of a batch, or stacked on an axis for `vmap`.

Slots of different sizes are padded: prompts and prefixes on the left and suffixes on the right,
with the padding masked; updates of embeddings, low ranks and bottlenecks with zeros, which add
nothing. So every example's result is unchanged. Prompts are padded on the left to keep their
distances to the input: T5's positions are relative.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.models.injection import Injection
from prompt_tuning.models.slots import AnyArray, Bottleneck, GatedPrompt, KeyValue, LowRank

# Vectors with a mask: the slot's field, the mask's field, and the side on which it is padded.
_VECTORS = (
    ("encoder_prompt", "encoder_prompt_mask", "left"),
    ("encoder_suffix", "encoder_suffix_mask", "right"),
    ("decoder_prompt", "decoder_prompt_mask", "left"),
)
# The block whose prefix comes before these vectors.
_SELF_ATTENTION = {
    "encoder_prompt": "encoder/attention",
    "encoder_suffix": "",
    "decoder_prompt": "decoder/self_attention",
}
_BY_NAME = ("prefixes", "gated_prompts", "low_rank", "scales", "bottlenecks")


class UnlikeInjectionsError(ValueError):
    """Injections that can't be stacked, since their methods fill different slots."""


def with_prompt_length(injection: Injection, length: int) -> Injection:
    """Returns an injection with its encoder prompt, if any, and its mask padded to a length."""
    prompt, mask = injection.encoder_prompt, injection.encoder_prompt_mask
    if prompt is None:
        return injection
    mask = _all_visible(prompt) if mask is None else mask
    attention = injection.encoder_prompt_attention
    return dataclasses.replace(
        injection,
        encoder_prompt_attention=attention if attention is None else _widened(attention, length),
        encoder_prompt=_padded(prompt, 1, length, "left"),
        encoder_prompt_mask=_padded(mask, 1, length, "left"),
    )


def stack_injections(
    injections: Sequence[Injection],
) -> tuple[list[AnyArray], Callable[[Sequence[AnyArray]], Injection]]:
    """Returns arrays stacked for `vmap`, and a function that rebuilds an injection from them.

        arrays, injection_of = stack_injections(injections)
        jax.vmap(lambda arrays: model(injection_of(arrays)))(arrays)

    Raises:
      UnlikeInjectionsError: a slot is filled in one and empty in another, or can't be padded.
    """
    alike = _alike(injections)
    stacked = [jnp.stack(leaves) for leaves in zip(*map(jax.tree.leaves, alike), strict=True)]
    return stacked, functools.partial(jax.tree.unflatten, jax.tree.structure(alike[0]))


def batch_injections(injections: Sequence[Injection]) -> Injection:
    """Returns one injection for a batch: the concatenation of its examples' injections.

    Args:
      injections: in the order of the examples; each has a batch axis of 1, or of the number of
        examples that it covers.

      Raises:
        ValueError: as in `stack_injections`; or one has weights, which a batch can't mix.
    """
    if any(injection.weights for injection in injections):
        raise ValueError("Examples of a batch can't each have their own weights.")

    def join(path: tuple[Any, ...], *leaves: AnyArray) -> Any:
        # In slots of layers, the batch axis follows the layer axis.
        return _numpy_of(leaves[0]).concatenate(leaves, axis=int(path[0].name in _BY_NAME))

    return jax.tree_util.tree_map_with_path(join, *_alike(injections))


def _alike(injections: Sequence[Injection]) -> list[Injection]:
    """Returns the injections padded to one structure and equal sizes."""
    filled = _pad_alike(injections)
    structures = {jax.tree.structure(injection) for injection in filled}
    if len(structures) > 1:
        slots = " and ".join(dict.fromkeys(map(_filled_slots, filled)))
        raise UnlikeInjectionsError(f"Injections with different slots can't be stacked: {slots}.")
    return filled


def _filled_slots(injection: Injection) -> str:
    paths = jax.tree_util.tree_leaves_with_path(injection)
    return "[" + ", ".join(sorted({"".join(map(str, path[:2])) for path, _ in paths})) + "]"


def _pad_alike(injections: Sequence[Injection]) -> list[Injection]:
    changes: list[dict[str, Any]] = [{} for _ in injections]
    for slot, mask, side in _VECTORS:
        lengths = [_length(getattr(injection, slot)) for injection in injections]
        masked = [getattr(injection, mask) is not None for injection in injections]
        if len(set(lengths)) == 1 and len(set(masked)) == 1:
            continue
        if 0 in lengths:
            raise UnlikeInjectionsError(
                f"An injection without {slot} can't be stacked with one that has it."
            )
        if any(_SELF_ATTENTION[slot] in injection.prefixes for injection in injections):
            raise UnlikeInjectionsError(
                f"Injections with prefixes and {slot} of several lengths can't be stacked: "
                "padding would come between the two."
            )
        for change, injection in zip(changes, injections, strict=True):
            vectors, visible = getattr(injection, slot), getattr(injection, mask)
            visible = _all_visible(vectors) if visible is None else visible
            change[slot] = _padded(vectors, 1, max(lengths), side)
            change[mask] = _padded(visible, 1, max(lengths), side)
    if any(injection.encoder_prompt_attention is not None for injection in injections):
        longest = max(injection.encoder_prompt_length for injection in injections)
        for change, injection in zip(changes, injections, strict=True):
            attention, prompt = injection.encoder_prompt_attention, injection.encoder_prompt
            if attention is None and prompt is not None:
                size = prompt.shape[1] + 1
                attention = _numpy_of(prompt).ones((prompt.shape[0], size, size), bool)
            if attention is not None:
                change["encoder_prompt_attention"] = _widened(attention, longest)
    longest = max(_length(injection.encoder_update) for injection in injections)
    for change, injection in zip(changes, injections, strict=True):
        if injection.encoder_update is not None:
            change["encoder_update"] = _padded(injection.encoder_update, 1, longest, "right")
    fillers = {
        "gated_prompts": _fill_lengths,
        "low_rank": _fill_ranks,
        "bottlenecks": _fill_widths,
    }
    for field, fill in fillers.items():
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
            continue  # equal, or so different that comparing the structures reports it
        for change, injection in zip(changes, injections, strict=True):
            prefix = injection.prefixes[name]
            batch = prefix.key.shape[1]
            visible = injection.prefix_mask(name)
            visible = _numpy_of(prefix.key).broadcast_to(visible, (batch, visible.shape[1]))
            longer = KeyValue(  # [layer, batch, heads, prefix, head_dim]
                key=_padded(prefix.key, 3, max(lengths), "left"),
                value=_padded(prefix.value, 3, max(lengths), "left"),
            )
            change["prefixes"] = {**change.get("prefixes", injection.prefixes), name: longer}
            change["prefix_masks"] = {
                **change.get("prefix_masks", injection.prefix_masks),
                name: _padded(visible, 1, max(lengths), "left"),
            }


def _fill_lengths(slots: Sequence[Mapping[str, GatedPrompt]]) -> list[dict[str, GatedPrompt]]:
    longest = {
        name: max(each[name].prompt.shape[2] for each in slots if name in each)
        for name in set().union(*slots)
    }
    alike = all(
        slot.visible is None and slot.prompt.shape[2] == longest[name]
        for each in slots
        for name, slot in each.items()
    )

    def padded(slot: GatedPrompt, length: int) -> GatedPrompt:
        shape = slot.prompt.shape[:3]
        visible = _numpy_of(slot.prompt).ones(shape, bool) if slot.visible is None else slot.visible
        return dataclasses.replace(
            slot,
            prompt=_padded(slot.prompt, 2, length, "right"),
            visible=_padded(visible, 2, length, "right"),
        )

    return [
        {name: slot if alike else padded(slot, longest[name]) for name, slot in each.items()}
        for each in slots
    ]


def _fill_ranks(slots: Sequence[Mapping[str, LowRank]]) -> list[dict[str, LowRank]]:
    ranks = {
        name: max(each[name].up.shape[2] for each in slots if name in each)
        for name in set().union(*slots)
    }
    return [
        {
            name: dataclasses.replace(
                slot,
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
                # Zeros: the padding adds nothing, even if the nonlinearity doesn't map 0 to 0.
                up=_padded(slot.up, 2, widths[name], "right"),
            )
            for name, slot in each.items()
        }
        for each in slots
    ]


def _length(vectors: AnyArray | None) -> int:
    return 0 if vectors is None else vectors.shape[1]


def _padded(x: AnyArray, axis: int, length: int, side: str) -> Any:
    missing = length - x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (missing, 0) if side == "left" else (0, missing)
    return _numpy_of(x).pad(x, widths) if missing else x


def _widened(attention: AnyArray, length: int) -> Any:
    """Returns the attention of a prompt padded to a length; its mask hides the padding."""
    missing = length + 1 - attention.shape[1]
    widths = ((0, 0), (missing, 0), (missing, 0))
    if not missing:
        return attention
    return _numpy_of(attention).pad(attention, widths, constant_values=True)


def _all_visible(vectors: AnyArray) -> Any:
    return _numpy_of(vectors).ones(vectors.shape[:2], bool)


def _numpy_of(x: AnyArray) -> Any:
    """Returns the array's module, so that host arrays stay on the host."""
    return np if isinstance(x, np.ndarray) else jnp
