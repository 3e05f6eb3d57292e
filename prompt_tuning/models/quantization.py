"""Kernels of a frozen model in 8 or 4 bits, widened again inside the layer that uses them.

    quantize_params(frozen, compute)    `compute.quantization` says how; `T5` takes the result

A kernel is cut into blocks of 64 numbers along its `embed` axis. Each block keeps its largest
absolute value, its scale, and for each number a code for its share of that:

- "int8": the nearest of 127 equal steps to either side (absmax, as in LLM.int8; Dettmers et al.,
  2022). 8.25 bits a number.
- "nf4": the nearest of 16 shares, the quantiles of a normal distribution, as weights are about
  normal (QLoRA; Dettmers et al., 2023, section 3 and appendix E). Two codes share a byte: 4.25
  bits a number.

Why blocks along `embed`: every kernel has that axis, and tensor parallelism splits none along it,
so a block never lies on two devices. Why blocks for int8 too, where LLM.int8 has a scale for an
output channel: the largest of 64 weights is about a third smaller than that of thousands, and the
error with it, for 0.25 bits. Scales are rounded to bfloat16 before codes are chosen by them, so
that the codes make up for it; that is half of what double quantization of float32 scales saves
(4.13 bits against 4.5), with nothing more to compute.

The embedding table, relative position biases and norms stay as they are, for a prompt's
initialization reads the first and the others are small; so does the output layer, as in QLoRA,
unless `compute.quantize_output_layer`.
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
from prompt_tuning.models.config import parameter_axes
from prompt_tuning.models.parameters import CODES, SCALES

_STEPS = 127  # to either side of zero, of int8


def _normal_float_4() -> tuple[float, ...]:
    """The 16 shares of NF4: quantiles of the normal distribution, 8 above zero, zero, 7 below.

    The outermost are those of 1 - d, where d is the mean of half a bin of 15 and of 16, as the
    quantile of 1 is infinite.
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

    Annotated as trees, since JAX puts other things in their places as it traces.

    Attributes:
      codes: int8, with the kernel's shape; or two NF4 codes in a uint8, the axis of blocks half as
        long: a byte's lower half belongs to the first half of the block.
      scales: of each block; the axis of blocks is as long as there are blocks.
      axis: which axis that is, counted from the last one (-1).
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
      block: numbers that share a scale, even; it divides the axis.
      axis: along which they lie, counted from the last one (-1).
    """
    wide = _cut(kernel.astype(jnp.float32), axis, kernel.shape[axis] // block)
    scales = jnp.max(jnp.abs(wide), axis).astype(jnp.bfloat16)
    # A block of zeros stays one.
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
    """Returns whether the parameter of this "/"-joined name is to be quantized."""
    if not compute.quantization or not name.endswith("/kernel"):
        return False
    return compute.quantize_output_layer or not name.endswith("logits_dense/kernel")


def quantize_parameter(
    name: str, kernel: Float[ArrayLike, "..."], compute: Compute
) -> QuantizedKernel:
    """Returns a kernel, one layer's or all layers', quantized as `compute` says.

    Raises:
      UserError: its `embed` axis can't be cut into such blocks.
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
    """Returns a whole model's weights as `compute` says; kernels become `CODES` and `SCALES`.

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
    """Returns a parameter as the model has it, by name, from an array in the host's memory.

    One layer at a time is on the device, and nothing of float32's size is made on the host.
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
    """Returns the float32 kernels in place of the codes: a model that computes the same."""

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
    """Cuts an axis in two, [..., blocks, block, ...]; `axis`, from the last, is then the second."""
    place = x.ndim + axis
    return x.reshape(*x.shape[:place], blocks, -1, *x.shape[place + 1 :])


def _joined(x: Array, axis: int) -> Array:
    """What `_cut` cut."""
    place = x.ndim + axis
    return x.reshape(*x.shape[: place - 1], -1, *x.shape[place + 1 :])


def _nf4_shares(codes: Array) -> Array:
    """Looks the codes up by choosing between neighbors, bit after bit.

    Elementwise, where a gather would be slow on accelerators and couldn't be fused.
    """
    # Mere constants JAX would widen to the kernel's shape, all sixteen, before the layers' loop.
    codes, table = jax.lax.optimization_barrier((codes, jnp.asarray(NF4, jnp.float32)))
    values = list(table)
    for bit in range(4):
        is_set = (codes >> bit) & 1 == 1
        values = [
            jnp.where(is_set, high, low)
            for low, high in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]
