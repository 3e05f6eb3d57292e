"""Kernels of a frozen model in 8 or 4 bits, dequantized inside the layer that uses them.

    quantize_params(frozen, compute)    in the format `compute.quantization`; `T5` takes the result

A kernel is split into blocks of 64 values along its `embed` axis. Each block stores its largest
absolute value, its scale, and for each value a code of its share of the scale:

- "int8": the nearest of 127 equal steps to either side (absmax, as in LLM.int8; Dettmers et al.,
  2022). 8.25 bits per value.
- "nf4": the nearest of 16 shares, the quantiles of a normal distribution, as weights are about
  normal (QLoRA; Dettmers et al., 2023, section 3 and appendix E). Two codes share a byte: 4.25
  bits per value.

Blocks are along `embed` since every kernel has that axis and tensor parallelism never shards it, so
no block spans two devices. int8 uses blocks too, rather than LLM.int8's scale per output channel:
the largest of 64 weights is about a third smaller than that of thousands, and so is the error, for
0.25 bits. Scales are rounded to bfloat16 before codes are chosen, so that the codes compensate for
it. That saves half as much as double quantization of float32 scales (4.13 bits instead of 4.5),
with no extra computation.

The embedding table, which initializes prompts, and the small relative position biases and norms
aren't quantized; nor is the output layer, as in QLoRA, unless `compute.quantize_output_layer`.
"""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from prompt_tuning.axes import EMBED
from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.parameters import CODES, SCALES, parameter_axes

_STEPS = 127  # of int8, to either side of zero


def _normal_float_4() -> tuple[float, ...]:
    """Returns the 16 shares of NF4: normal quantiles, 8 above zero, zero, and 7 below.

    The outermost are the quantiles of 1 - d, since the quantile of 1 is infinite; d is the mean of
    half a bin of 15 and half a bin of 16.
    """
    outermost = 1 - (1 / 30 + 1 / 32) / 2

    def quantiles(count: int) -> list[float]:
        steps = [outermost + (0.5 - outermost) * step / count for step in range(count)]
        return [NormalDist().inv_cdf(step) for step in steps]

    above, below = quantiles(8), quantiles(7)
    return tuple(sorted([*(-x / below[0] for x in below), 0.0, *(x / above[0] for x in above)]))


NF4 = _normal_float_4()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class QuantizedKernel:
    """A kernel as codes and scales, or the kernels of several layers on leading axes.

    Fields are annotated as trees, since JAX puts other objects in their place during tracing.

    Attributes:
      codes: int8 of the kernel's shape; or two NF4 codes per uint8, with `axis` half as long: a
        byte's lower half belongs to the first half of the block.
      scales: one per block: the kernel's shape, with the number of blocks on `axis`.
      axis: the axis of blocks, counted from the last one (-1).
    """

    codes: PyTree
    scales: PyTree
    axis: int = field(metadata={"static": True})

    def dequantize(self) -> Float[Array, "..."]:
        """Returns the kernel in float32."""
        axis = self.axis
        blocks = self.scales.shape[axis]
        codes = _cut(self.codes, axis, blocks)
        if codes.dtype == jnp.uint8:
            codes = jnp.concatenate([codes & 15, codes >> 4], axis)
            shares = _nf4_shares(codes)
        else:
            shares = codes.astype(jnp.float32) / _STEPS
        values = shares * jnp.expand_dims(self.scales.astype(jnp.float32), axis)
        return _joined(values, axis)


@functools.partial(jax.jit, static_argnames=("to", "block", "axis"))
def quantize(kernel: Float[Array, "..."], *, to: str, block: int, axis: int) -> QuantizedKernel:
    """Returns a kernel in "int8" or "nf4".

    Args:
      kernel: in any floating-point dtype; layers may be stacked in front.
      to: the format.
      block: the number of values that share a scale; even, and a divisor of the axis.
      axis: the axis of blocks, counted from the last one (-1).
    """
    wide = _cut(kernel.astype(jnp.float32), axis, kernel.shape[axis] // block)
    scales = jnp.max(jnp.abs(wide), axis).astype(jnp.bfloat16)
    # A block of zeros stays zero.
    divisors = jnp.where(scales == 0, 1, scales).astype(jnp.float32)
    shares = wide / jnp.expand_dims(divisors, axis)
    if to == "int8":
        codes = jnp.clip(jnp.round(shares * _STEPS), -_STEPS, _STEPS).astype(jnp.int8)
    else:
        borders = [(low + high) / 2 for low, high in itertools.pairwise(NF4)]
        above = [(shares > border).astype(jnp.uint8) for border in borders]
        low, high = jnp.split(functools.reduce(jnp.add, above), 2, axis)
        codes = low | (high << 4)
    return QuantizedKernel(codes=_joined(codes, axis), scales=scales, axis=axis)


def is_quantized(name: str, compute: Compute) -> bool:
    """Returns whether the parameter of this "/"-joined name is quantized."""
    if not compute.quantization or not name.endswith("/kernel"):
        return False
    return compute.quantize_output_layer or not name.endswith("logits_dense/kernel")


def quantize_parameter(
    name: str, kernel: Float[ArrayLike, "..."], compute: Compute
) -> QuantizedKernel:
    """Returns a kernel, of one layer or all, quantized according to `compute`.

    Raises:
      UserError: the block size doesn't divide its `embed` axis.
    """
    axis, block = _block_axis(name), compute.quantization_block
    embed = np.shape(kernel)[axis]
    if embed % block:
        blocks = [size for size in range(2, min(block, embed) + 1, 2) if embed % size == 0]
        fix = f"set it to {blocks[-1]}" if blocks else "this model can't be quantized"
        raise UserError(
            f"quantization_block is {block}; it must divide the model's embed_dim, {embed}: {fix}."
        )
    return quantize(kernel, to=compute.quantization, block=block, axis=axis)


def quantize_params(params: Mapping[str, Any], compute: Compute) -> dict[str, Any]:
    """Returns a model's weights with each quantized kernel replaced by `CODES` and `SCALES`.

    Args:
      params: nested dicts of floating-point arrays.
      compute: with `quantization` set.
    """

    def walk(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                result[key] = walk(value, f"{name}/")
            elif is_quantized(name, compute):
                found = quantize_parameter(name, value, compute)
                result |= {CODES: found.codes, SCALES: found.scales}
            else:
                result[key] = value
        return result

    return walk(params, "")


def quantize_stored(name: str, whole: np.ndarray, compute: Compute) -> dict[str, np.ndarray]:
    """Converts a stored parameter to the model's, by name: unchanged, or codes and scales.

    The device processes one layer at a time, and the host never stores the kernel in float32.
    """
    if not is_quantized(name, compute):
        return {name: whole}
    layers = whole if "/layers/" in name else whole[None]
    found = [jax.device_get(quantize_parameter(name, layer, compute)) for layer in layers]
    codes = np.stack([kernel.codes for kernel in found])
    scales = np.stack([kernel.scales for kernel in found])
    if layers is not whole:
        codes, scales = codes[0], scales[0]
    module = name.removesuffix("kernel")
    return {module + CODES: codes, module + SCALES: scales}


def dequantize_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns equivalent weights with float32 kernels instead of codes and scales."""

    def walk(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        if CODES in tree:
            axis = _block_axis(f"{prefix}kernel")
            kernel = QuantizedKernel(codes=tree[CODES], scales=tree[SCALES], axis=axis)
            return {"kernel": kernel.dequantize()}
        return {
            key: walk(value, f"{prefix}{key}/") if isinstance(value, Mapping) else value
            for key, value in tree.items()
        }

    return walk(params, "")


def _block_axis(name: str) -> int:
    axes = parameter_axes(name)
    return axes.index(EMBED) - len(axes)


def _cut(x: Array, axis: int, blocks: int) -> Array:
    """Splits `axis`, counted from the last, into [..., blocks, block, ...]."""
    place = x.ndim + axis
    return x.reshape(*x.shape[:place], blocks, -1, *x.shape[place + 1 :])


def _joined(x: Array, axis: int) -> Array:
    """Undoes `_cut`."""
    place = x.ndim + axis
    return x.reshape(*x.shape[: place - 1], -1, *x.shape[place + 1 :])


def _nf4_shares(codes: Array) -> Array:
    """Looks the codes up by choosing between neighbors, bit by bit.

    It is elementwise: a gather would be slow on accelerators and couldn't be fused.
    """
    # Otherwise the 16 constants would be broadcast to the kernel's shape before the layer loop.
    codes, table = jax.lax.optimization_barrier((codes, jnp.asarray(NF4, jnp.float32)))
    values = list(table)
    for bit in range(4):
        is_set = (codes >> bit) & 1 == 1
        values = [
            jnp.where(is_set, high, low)
            for low, high in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]
