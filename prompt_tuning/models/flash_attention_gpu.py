"""The kernels of flash_attention.py for NVIDIA GPUs: FlashAttention-2 (Dao, 2023) in Triton.

A program has one block of queries (or of keys, for their gradients) of one example and head, and
loops over the blocks of the others. The bias of a block of logits is gathered from the vector of
distances, which stays in the cache.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array

# Queries and keys of a block of logits.
BLOCK = 64


def forward(
    query: Array, key: Array, value: Array, tables: Array, row: Array, *, interpret: bool = False
) -> tuple[Array, Array]:
    """Returns the output and, for each head, its queries' largest logits and inverse sums.

    Args:
      query: [batch, target, heads * head_dim], as the output; `head_dim` is a power of two.
      key: [batch, source, heads * head_dim].
      value: as `key`.
      tables: [groups, heads of a group, 128, n], as `flash_attention.bias_tables`.
      row: [batch, 1, padded source], added to the logits of each key.
      interpret: run as plain JAX operations, for tests.
    """
    groups, per_group = tables.shape[:2]
    arguments = _arguments((query, key, value), tables, row)
    batch, target, heads, _ = arguments[0].shape
    statistic = jax.ShapeDtypeStruct((batch, heads, target), jnp.float32)
    results = (arguments[0], statistic, statistic)
    output, *statistics = _call(_flash_attention, arguments, results, interpret)
    statistics = jnp.stack(statistics, axis=2).reshape(batch, groups, 2 * per_group, target)
    return output.reshape(query.shape), statistics


def backward(
    query: Array,
    key: Array,
    value: Array,
    statistics: Array,
    cotangent: Array,
    output: Array,
    tables: Array,
    row: Array,
    *,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Returns the gradients of queries, keys and values.

    Args:
      query, key, value, tables, row, interpret: as in `forward`.
      statistics: from `forward`.
      cotangent: of the output.
      output: from `forward`.
    """
    *arguments, bias, row = _arguments((query, key, value, cotangent), tables, row)
    queries, keys, values, cotangents = arguments
    batch, target, heads, _ = queries.shape
    largest, inverse = jnp.moveaxis(statistics.reshape(batch, heads, 2, target), 2, 0)
    products = output.reshape(queries.shape).astype(jnp.float32) * cotangents.astype(jnp.float32)
    mean = products.sum(axis=3).swapaxes(1, 2)
    arguments = (queries, keys, values, bias, row, largest, inverse, mean, cotangents)
    (d_query,) = _call(_flash_attention_d_query, arguments, [queries], interpret)
    d_key, d_value = _call(_flash_attention_d_key_value, arguments, [keys, values], interpret)
    return d_query.reshape(query.shape), d_key.reshape(key.shape), d_value.reshape(value.shape)


def _arguments(arrays: Sequence[Array], tables: Array, row: Array) -> list[Array]:
    """Returns arrays as [batch, length, heads, head_dim], the bias by distance, and the mask.

    The bias of key s for query t is at index t - s + padded source - 1.
    """
    by_head = tables.reshape(-1, *tables.shape[2:])
    heads, rows, _ = by_head.shape  # the last row starts at index 0, the first at rows - 1
    bias = jnp.concatenate([by_head[:, -1], by_head[:, 0, 1 - rows :]], axis=1)
    return [*(x.reshape(*x.shape[:2], heads, -1) for x in arrays), bias, row[:, 0]]


def _call(
    kernel: Any, arguments: Sequence[Array], results: Sequence[Any], interpret: bool
) -> Sequence[Array]:
    """Runs a kernel for all examples, heads and blocks of positions of the first result.

    A program sees the whole length of one example and head of each array.
    """
    batch, length, heads, _ = results[0].shape

    def spec(x: Any) -> pl.BlockSpec:
        if x.ndim == 4:  # [batch, length, heads, head_dim]
            return pl.BlockSpec((None, x.shape[1], None, x.shape[3]), lambda b, h, i: (b, 0, h, 0))
        if x.ndim == 3:  # statistics, [batch, heads, target]
            return pl.BlockSpec((None, None, x.shape[2]), lambda b, h, i: (b, h, 0))
        if x is arguments[3]:  # the bias, [heads, distances]
            return pl.BlockSpec((None, x.shape[1]), lambda b, h, i: (h, 0))
        return pl.BlockSpec((None, x.shape[1]), lambda b, h, i: (b, 0))  # the mask

    return pl.pallas_call(
        kernel,
        grid=(batch, heads, pl.cdiv(length, BLOCK)),
        in_specs=[spec(x) for x in arguments],
        out_specs=[spec(x) for x in results],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name=kernel.__name__.strip("_"),
    )(*arguments)


def _flash_attention(
    query_ref: Any,
    key_ref: Any,
    value_ref: Any,
    bias_ref: Any,
    row_ref: Any,
    output_ref: Any,
    largest_ref: Any,
    inverse_ref: Any,
) -> None:
    first = pl.program_id(2) * BLOCK
    query = _rows(query_ref, first)

    def add_keys(j: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        output, largest, total = carry
        key, value = _rows(key_ref, j * BLOCK), _rows(value_ref, j * BLOCK)
        logits = _logits(query, key, first, j * BLOCK, bias_ref, row_ref)
        following = jnp.maximum(largest, jnp.max(logits, axis=1))
        weights = jnp.exp(logits - following[:, None])
        scale = jnp.exp(largest - following)
        output = output * scale[:, None] + plgpu.dot(weights.astype(value.dtype), value)
        return output, following, total * scale + jnp.sum(weights, axis=1)

    start = (
        jnp.zeros(query.shape, jnp.float32),
        jnp.full(BLOCK, -jnp.inf, jnp.float32),
        jnp.zeros(BLOCK, jnp.float32),
    )
    output, largest, total = jax.lax.fori_loop(0, _blocks(key_ref), add_keys, start)
    _store(output_ref, first, output / total[:, None])
    inside = first + jnp.arange(BLOCK) < len(query_ref)
    plgpu.store(largest_ref.at[pl.ds(first, BLOCK)], largest, mask=inside)
    plgpu.store(inverse_ref.at[pl.ds(first, BLOCK)], 1 / total, mask=inside)


def _flash_attention_d_query(
    query_ref: Any,
    key_ref: Any,
    value_ref: Any,
    bias_ref: Any,
    row_ref: Any,
    largest_ref: Any,
    inverse_ref: Any,
    mean_ref: Any,
    cotangent_ref: Any,
    d_query_ref: Any,
) -> None:
    first = pl.program_id(2) * BLOCK
    query, cotangent = _rows(query_ref, first), _rows(cotangent_ref, first)
    statistics = _columns(first, largest_ref, inverse_ref, mean_ref)

    def add_keys(j: Any, d_query: Array) -> Array:
        key, value = _rows(key_ref, j * BLOCK), _rows(value_ref, j * BLOCK)
        logits = _logits(query, key, first, j * BLOCK, bias_ref, row_ref)
        _, d_logits = _gradients(logits, statistics, cotangent, value)
        return d_query + plgpu.dot(d_logits.astype(key.dtype), key)

    start = jnp.zeros(query.shape, jnp.float32)
    _store(d_query_ref, first, jax.lax.fori_loop(0, _blocks(key_ref), add_keys, start))


def _flash_attention_d_key_value(
    query_ref: Any,
    key_ref: Any,
    value_ref: Any,
    bias_ref: Any,
    row_ref: Any,
    largest_ref: Any,
    inverse_ref: Any,
    mean_ref: Any,
    cotangent_ref: Any,
    d_key_ref: Any,
    d_value_ref: Any,
) -> None:
    first = pl.program_id(2) * BLOCK
    key, value = _rows(key_ref, first), _rows(value_ref, first)

    def add_queries(i: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        d_key, d_value = carry
        query, cotangent = _rows(query_ref, i * BLOCK), _rows(cotangent_ref, i * BLOCK)
        logits = _logits(query, key, i * BLOCK, first, bias_ref, row_ref)
        statistics = _columns(i * BLOCK, largest_ref, inverse_ref, mean_ref)
        weights, d_logits = _gradients(logits, statistics, cotangent, value)
        d_key += plgpu.dot(d_logits.astype(query.dtype).T, query)
        return d_key, d_value + plgpu.dot(weights.astype(query.dtype).T, cotangent)

    start = (jnp.zeros(key.shape, jnp.float32),) * 2
    d_key, d_value = jax.lax.fori_loop(0, _blocks(query_ref), add_queries, start)
    _store(d_key_ref, first, d_key)
    _store(d_value_ref, first, d_value)


def _blocks(ref: Any) -> int:
    return pl.cdiv(len(ref), BLOCK)


def _rows(ref: Any, first: Any) -> Array:
    """Returns a block of rows, with zeros beyond the array's end."""
    inside = (first + jnp.arange(BLOCK) < len(ref))[:, None]
    return plgpu.load(ref.at[pl.ds(first, BLOCK), :], mask=inside, other=0)


def _store(ref: Any, first: Any, x: Array) -> None:
    inside = (first + jnp.arange(BLOCK) < len(ref))[:, None]
    plgpu.store(ref.at[pl.ds(first, BLOCK), :], x.astype(ref.dtype), mask=inside)


def _columns(first: Any, *refs: Any) -> list[Array]:
    """Returns a block of each of the statistics as a column, with zeros beyond the end."""
    inside = first + jnp.arange(BLOCK) < len(refs[0])
    blocks = [plgpu.load(ref.at[pl.ds(first, BLOCK)], mask=inside, other=0) for ref in refs]
    return [block[:, None] for block in blocks]


def _logits(query: Array, key: Array, t: Any, s: Any, bias_ref: Any, row_ref: Any) -> Array:
    """Returns the logits of the queries from `t` and the keys from `s` on."""
    queries, keys = t + jnp.arange(BLOCK)[:, None], s + jnp.arange(BLOCK)[None, :]
    bias = plgpu.load(bias_ref.at[queries - keys + len(row_ref) - 1])
    hidden = row_ref[pl.ds(s, BLOCK)]
    return plgpu.dot(query, key.T) + bias + hidden[None, :]


def _gradients(
    logits: Array, statistics: Sequence[Array], cotangent: Array, value: Array
) -> tuple[Array, Array]:
    """Returns the weights and the gradient of the logits."""
    largest, inverse, mean = statistics
    weights = jnp.exp(logits - largest) * inverse
    return weights, weights * (plgpu.dot(cotangent, value.T) - mean)
