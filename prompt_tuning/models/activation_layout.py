"""How a model's activations are divided among devices: what `parallel.rules.Layout` implements."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jax import Array

from prompt_tuning.models.parameters import Axes


@runtime_checkable
class ActivationLayout(Protocol):
    """How activations are divided among devices, by their logical axes (`axes.py`)."""

    def constrain(self, x: Array, logical_axes: Axes) -> Array:
        """Returns `x`, with its sharding constrained if the compiler wouldn't find it itself."""
        ...

    def scatter(self, x: Array) -> Array:
        """Returns `x` with its features, the last axis, divided among model-parallel devices.

        Each of them has all features of its examples otherwise, and would store them all.
        """
        ...

    def gather(self, x: Array) -> Array:
        """Returns `x` with all features on each device; the inverse of `scatter`."""
        ...

    def by_shard(self, f: Callable[..., Array], logical_axes: Sequence[Axes], out: Axes) -> Any:
        """Returns `f` as a function that every device applies to its shards of the arguments."""
        ...


class OneDevice:
    """The layout of a model on one device."""

    def constrain(self, x: Array, logical_axes: Axes) -> Array:
        """Returns `x`."""
        del logical_axes
        return x

    def scatter(self, x: Array) -> Array:
        """Returns `x`."""
        return x

    def gather(self, x: Array) -> Array:
        """Returns `x`."""
        return x

    def by_shard(self, f: Callable[..., Array], logical_axes: Sequence[Axes], out: Axes) -> Any:
        """Returns `f`."""
        del logical_axes, out
        return f


ONE_DEVICE = OneDevice()
