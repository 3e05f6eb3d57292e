"""One row for each parameter of a model: what it is called, shaped, and laid out.

A config returns the table of its architecture, `config.parameters()`. Sharding rules, the targets
of methods, and the readers and writers of files are views of it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import PyTree

from prompt_tuning.axes import LAYER

Axes = tuple[str | None, ...]
"""A logical axis (`axes.py`) for each axis of an array; None for one that is never split."""

CODES, SCALES = "kernel_codes", "kernel_scales"
"""The two parameters that replace a quantized `kernel`; see quantization.py."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a model; that of a stack's layers is one array, [layer, ...].

    Attributes:
      name: its "/"-joined path, as in T5X, but for the layers: "encoder/layers/mlp/wo/kernel".
      shape: of the whole array.
      axes: logical axes, one for each of the shape's.
      inputs: of a kernel, how many axes the matrix product sums over. They come first, or right
        after `layer`. 0 if it isn't a kernel.
      huggingface: its name there, with "{layer}" for a layer's number.
      transposed: whether axes are in reverse order there, as [out, in] for a kernel's [in, out].
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes
    inputs: int
    huggingface: str
    transposed: bool

    @property
    def layers(self) -> int:
        """Layers of its stack; 0 if it is outside of them."""
        return self.shape[0] if self.axes[0] == LAYER else 0

    @property
    def module(self) -> str:
        """The "STACK/MODULE" that it belongs to, as methods call it: "encoder/mlp/wo"."""
        return self.name.replace("/layers/", "/").rpartition("/")[0]

    def layer_names(self) -> list[str]:
        """Returns T5X's name of each layer's array, or of the only one."""
        return [
            self.name.replace("/layers/", f"/layers_{layer}/") for layer in range(self.layers or 1)
        ]

    def huggingface_names(self) -> list[str]:
        """Returns Hugging Face's name of each layer's array, or of the only one."""
        return [self.huggingface.format(layer=layer) for layer in range(self.layers or 1)]


@runtime_checkable
class Architecture(Protocol):
    """A config whose parameters are known without tracing its model."""

    def parameters(self) -> Iterable[Parameter]:
        """Returns the table."""
        ...


def parameter_shapes(config: Architecture) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter by its name, sorted, where nothing is quantized."""
    return dict(sorted((each.name, each.shape) for each in config.parameters()))


def count_parameters(params: PyTree) -> int:
    """Returns how many values are in a tree of arrays or of their shapes.

    Quantization doesn't change the count: a byte of NF4 counts twice, and scales don't count.
    """
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = getattr(path[-1], "key", None) if path else None
        packed = 2 if name == CODES and leaf.dtype == "uint8" else 1
        total += 0 if name == SCALES else packed * math.prod(leaf.shape)
    return total
