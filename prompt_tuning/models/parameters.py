"""The table of a model's parameters: names, shapes and logical axes.

`config.parameters()` returns the table of an architecture. Sharding rules, the targets of methods,
and the readers and writers of files are derived from it.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import PyTree

from prompt_tuning.axes import BLOCKS, BUCKETS, EMBED, HEAD_DIM, HEADS, LAYER, MLP, VOCAB

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


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """An architecture of any family; numerics are in `Compute` (compute.py).

    Attributes:
      name: the model's name in files and messages.
      vocab_size: rows of the embedding table.
      embed_dim: width of the encoder's embeddings, and so of prompts.
      pad_id: id of padding in inputs and targets, which is masked.
      eos_id: id that ends a sequence.
      decoder_start_id: id of the decoder's start token; `pad_id` if None.
    """

    name: str
    vocab_size: int
    embed_dim: int
    pad_id: int = 0
    eos_id: int = 1
    decoder_start_id: int | None = None

    @property
    def start_id(self) -> int:
        """The id of the decoder's start token."""
        return self.pad_id if self.decoder_start_id is None else self.decoder_start_id

    @property
    def family(self) -> str:
        """The name of the family."""
        return "t5"

    @property
    def embedding_scale(self) -> float:
        """The factor of the embedding table's rows in the input, to which prompts are prepended."""
        return 1.0

    @property
    def peft_scale(self) -> float:
        """The factor of PEFT's prompts; not 1 if `transformers` scales given vectors."""
        return 1.0

    @property
    def rope_theta(self) -> float | None:
        """The base of the rotary positions of the decoder's self-attention; None for others."""
        return None

    def parameters(self) -> tuple[Parameter, ...]:
        """Returns one row per parameter of the model."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-serializable dict."""
        return dataclasses.asdict(self)


_AXES: dict[str, Axes] = {
    **dict.fromkeys(("token_embedder", "decoder_embedder"), (VOCAB, EMBED)),
    "relpos_bias": (HEADS, BUCKETS),
    **dict.fromkeys(("query", "key", "value"), (EMBED, HEADS, HEAD_DIM)),
    "out": (HEADS, HEAD_DIM, EMBED),
    **dict.fromkeys(("wi", "wi_0", "wi_1"), (EMBED, MLP)),
    "wo": (MLP, EMBED),
    "logits_dense": (EMBED, VOCAB),
}


def parameter_axes(name: str) -> Axes:
    """Returns the logical axes of a parameter by its "/"-joined name, the same in all families.

    A quantized kernel's codes have the kernel's axes; its scales have `BLOCKS` for `EMBED`.
    """
    module = name.split("/")[-2]
    # Norms are a few kilobytes: cheaper to replicate than to gather.
    axes = (None,) if module.endswith("norm") else _AXES[module]
    axes = axes[1:] if name.endswith("/bias") else axes
    axes = (LAYER, *axes) if "/layers/" in name else axes
    if name.endswith("_scales"):
        return tuple(BLOCKS if axis == EMBED else axis for axis in axes)
    return axes


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
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
