"""The table of a model's parameters: names, shapes and logical axes.

`config.parameters()` returns the table of an architecture. Sharding rules, the targets of methods,
and the readers and writers of files are derived from it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
from jaxtyping import PyTree

from prompt_tuning.axes import LAYER

Axes = tuple[str | None, ...]
"""A logical axis (`axes.py`) for each axis of an array; None for one that is never sharded."""

CODES, SCALES = "kernel_codes", "kernel_scales"
"""The two parameters that replace a quantized `kernel`; see quantization.py."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a model; all layers of a stack share one array, [layer, ...].

    Attributes:
      name: its "/"-joined path, as in T5X except for the layers: "encoder/layers/mlp/wo/kernel".
      shape: of the whole array.
      axes: the logical axis of each dimension.
      inputs: for a kernel, the number of axes that the matrix product sums over. They come first,
        or right after `layer`. 0 if it isn't a kernel.
      huggingface: its name in Hugging Face's files, with "{layer}" for a layer's index.
      transposed: whether axes are reversed there: [out, in] for a kernel's [in, out].
    """

    name: str
    shape: tuple[int, ...]
    axes: Axes
    inputs: int
    huggingface: str
    transposed: bool

    @property
    def layers(self) -> int:
        """The number of layers of its stack; 0 if it is outside the layers."""
        return self.shape[0] if self.axes[0] == LAYER else 0

    @property
    def module(self) -> str:
        """The module it belongs to, in methods' form "STACK/MODULE": "encoder/mlp/wo"."""
        return self.name.replace("/layers/", "/").rpartition("/")[0]

    def layer_names(self) -> list[str]:
        """Returns T5X's name of each layer's array, or of the single array."""
        return [
            self.name.replace("/layers/", f"/layers_{layer}/") for layer in range(self.layers or 1)
        ]

    def huggingface_names(self) -> list[str]:
        """Returns Hugging Face's name of each layer's array, or of the single array."""
        return [self.huggingface.format(layer=layer) for layer in range(self.layers or 1)]


@runtime_checkable
class Architecture(Protocol):
    """A config whose parameters are known without tracing its model."""

    def parameters(self) -> Iterable[Parameter]:
        """Returns the table of parameters."""
        ...


def parameter_shapes(config: Architecture) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every unquantized parameter by name, sorted."""
    return dict(sorted((each.name, each.shape) for each in config.parameters()))


def count_parameters(params: PyTree) -> int:
    """Returns the number of values in a tree of arrays or of their shapes.

    Quantization doesn't change it: a byte of NF4 counts twice, and scales don't count.
    """
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = getattr(path[-1], "key", None) if path else None
        packed = 2 if name == CODES and leaf.dtype == "uint8" else 1
        total += 0 if name == SCALES else packed * math.prod(leaf.shape)
    return total
