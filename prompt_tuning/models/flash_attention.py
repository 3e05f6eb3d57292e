"""T5's attention without [heads, target, source] arrays in memory, as a Pallas kernel for TPUs.

    tables = bias_tables(bias_by_distance, target, source)  # once for all layers of a stack
    output = flash_attention(query, key, value, tables, mask)

As FlashAttention (Dao et al., 2022), the backward pass recomputes the attention weights from
queries, keys and two numbers a row. Unlike there, a program of the kernel has all keys of a row in
on-chip memory, so that its softmax needs no rescaling. Logits are transposed, [source, target]:
statistics of the softmax are then rows, and the only transposed operands of matrix products are
[length, head_dim].

T5's bias is a Toeplitz matrix: it depends on the distance of key and query only. A TPU can't read
a vector from any offset, only from multiples of 128. So a table has the vector 128 times, each copy
shifted by one, and every [128, n] block of the matrix is a slice of it.

NVIDIA GPUs have kernels of their own, in flash_attention_gpu.py, which keep the output for the
backward pass too.

GSPMD can't partition the kernels: under a mesh, call `flash_attention` in `jax.shard_map`, with the
batch and the heads of all arguments divided.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float

from prompt_tuning.models import flash_attention_gpu

# Added to the logits of hidden keys, as in attention.py.
HIDDEN = -1e9
# The lanes of a TPU's vector registers. Blocks are multiples of it.
LANES = 128
# Logits of one program and head; fewer leave the matrix unit idle between dependent steps.
BLOCK_LOGITS = 640 * 640
# Of a TPU's on-chip memory, in bytes. All 64 MiB of v5p; v5e and v6e have 128. v4 has 16, enough
# for about 2,200 keys in bfloat16; its compiler refuses more.
VMEM_LIMIT = 64 * 2**20


def bias_tables(
    bias: Float[Array, "heads distances"], target: int, source: int
) -> Float[Array, "heads 128 n"]:
    """Returns the position bias as `flash_attention` reads it.

    Args:
      bias: the bias of key s for query t at index s - t + target - 1, so target + source - 1
        distances. It can't be differentiated.
      target: the number of queries.
      source: the number of keys.
    """
    rows, padded = _query_block(target, source), _up(source, LANES)
    # The bias at index t - s + padded - 1.
    reverse = _frozen(bias.astype(jnp.float32))[:, ::-1]
    widths = (padded - source, _up(target, rows) - target)
    tables = jnp.pad(reverse, ((0, 0), widths))[:, None]
    shift = 1
    while shift < LANES:  # row i becomes the vector from index 127 - i on
        tables = jnp.concatenate([tables[..., shift:], tables[..., :-shift]], axis=1)
        shift *= 2
    return tables


@jax.custom_jvp
def _frozen(bias: Array) -> Array:
    return bias


@_frozen.defjvp
def _frozen_jvp(primals: Any, tangents: Any) -> Any:
    raise ValueError(
        'Flash attention gives the position bias no gradient; train it with attention="plain".'
    )


def flash_attention(
    query: Float[Array, "batch heads target head_dim"],
    key: Float[Array, "batch heads source head_dim"],
    value: Float[Array, "batch heads source head_dim"],
    tables: Float[Array, "heads 128 n"],
    mask: Bool[Array, "batch source"],
) -> Float[Array, "batch heads target head_dim"]:
    """Returns softmax(query @ key^T + bias + mask) @ value, in the dtype of `query`.

    Logits aren't scaled. Products are accumulated and the softmax is computed in float32. Queries,
    keys and values get gradients; only they and two float32 numbers per row and head are kept for
    the backward pass.

    Args:
      query: in the dtype of the matrix products, as keys and values.
      key: prefixes first.
      value: as `key`.
      tables: from `bias_tables`, with the same numbers of queries and keys.
      mask: which keys are visible. Where none is, all weigh the same, as float32 can't resolve
        logits near -1e9.
    """
    heads = query.shape[1]
    per_group = _heads_per_group(heads, query.shape[3])
    row = jnp.where(mask, jnp.float32(0), HIDDEN)
    padding = _up(mask.shape[1], LANES) - mask.shape[1]
    row = jnp.pad(row, ((0, 0), (0, padding)), constant_values=-jnp.inf)[:, None]
    output: Any = _attend(
        *(_merge_heads(x) for x in (query, key, value)),
        tables.reshape(heads // per_group, per_group, *tables.shape[1:]),
        row,
    )
    return output.reshape(*output.shape[:2], heads, -1).swapaxes(1, 2)


def cost(
    batch: int, heads: int, target: int, source: int, head_dim: int, itemsize: int, backward: bool
) -> pl.CostEstimate:
    """Returns what one call of the kernel computes and moves, padding included.

    A TPU's matrix unit multiplies by squares of 128 (v6e: 256) at a time. With `head_dim` 64, one
    side of each product is 64, so that half (v6e: a quarter) of the published peak is attainable.
    The schedules that the compiler makes for 612 queries and keys in bfloat16 take these shares of
    it, forward and backward: v4 0.46 and 0.66, v5e and v5p 0.77 and 0.93, v6e 0.50 and 0.70. About
    9 (backward: 15) vector operations and one exponential per logit run beside the products.
    """
    rows, padded = _query_block(target, source), _up(source, LANES)
    logits = batch * heads * _up(target, rows) * padded
    products, queries, keys = (5, 3, 4) if backward else (2, 2, 2)
    features = batch * heads * head_dim * itemsize
    tables = heads * LANES * (_up(target, rows) + padded - LANES)
    statistics = batch * heads * target * 2
    return pl.CostEstimate(
        flops=products * 2 * logits * head_dim,
        transcendentals=logits,
        bytes_accessed=(queries * target + keys * source) * features + 4 * (tables + statistics),
    )


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _query_block(target: int, source: int) -> int:
    """Returns how many queries a program has."""
    blocks = max(1, round(target * source / BLOCK_LOGITS))
    return _up(pl.cdiv(target, blocks), LANES)


def _heads_per_group(heads: int, head_dim: int) -> int:
    """Returns how many heads fill whole vector registers side by side, or all of them."""
    wanted = (n for n in range(1, heads) if heads % n == 0 and n * head_dim % LANES == 0)
    return next(wanted, heads)


def _merge_heads(x: Array) -> Array:
    """Returns [batch, length, heads * head_dim]: arrays with rows of 64 would be padded to 128."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


@jax.custom_vjp
def _attend(query: Array, key: Array, value: Array, tables: Array, row: Array) -> Array:
    return _call(False, query, key, value, tables, row)[0]


def _attend_forward(
    query: Array, key: Array, value: Array, tables: Array, row: Array
) -> tuple[Array, tuple[Array, ...]]:
    output, statistics = _call(False, query, key, value, tables, row)
    return output, (query, key, value, statistics, output, tables, row)


def _attend_backward(residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array | None, ...]:
    query, key, value, statistics, output, tables, row = residuals
    # Only GPUs need the output. For TPUs, XLA finds it unused and doesn't keep it.
    gradients = _call(True, query, key, value, statistics, cotangent, output, tables, row)
    return *gradients, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _call(backward: bool, *operands: Array) -> Sequence[Array]:
    """Runs the kernel of a pass on any platform."""
    return jax.lax.platform_dependent(
        *operands,
        cpu=functools.partial(_call_tpu, backward, True),  # for tests
        cuda=flash_attention_gpu.backward if backward else flash_attention_gpu.forward,
        default=functools.partial(_call_tpu, backward, False),
    )


def _call_tpu(backward: bool, interpret: bool, *operands: Array) -> Sequence[Array]:
    """Runs a kernel for all groups of heads, examples and blocks of queries.

    If `interpret`, as plain JAX operations, slowly.
    """
    *arrays, tables, row = operands
    arrays = arrays[: 5 if backward else 3]  # without the output
    query, key = arrays[:2]
    kernel = _backward_kernel if backward else _forward_kernel
    batch, target, features = query.shape
    source, padded = key.shape[1], row.shape[2]
    groups, per_group = tables.shape[:2]
    rows, width = _query_block(target, source), features // groups
    # Blocks may exceed the arrays: what lies beyond reads as garbage and isn't written.
    queries = pl.BlockSpec((1, rows, width), lambda g, b, t: (b, t, g))
    # With several blocks of queries, a second buffer would save little time.
    once = {"pipeline_mode": pl.Buffered(1)} if target > rows else {}
    keys = pl.BlockSpec((1, padded, width), lambda g, b, t: (b, 0, g), **once)
    statistics = pl.BlockSpec((1, 1, 2 * per_group, rows), lambda g, b, t: (b, g, 0, t))
    # Groups change last: their tables are read once, with no second buffer to read ahead.
    table = pl.BlockSpec(
        (1, *tables.shape[1:]), lambda g, b, t: (g, 0, 0, 0), pipeline_mode=pl.Buffered(1)
    )
    mask = pl.BlockSpec((1, 1, padded), lambda g, b, t: (b, 0, 0))
    out_shapes = [(x.shape, x.dtype) for x in arrays[:3]]
    if not backward:
        out_shapes[1:] = [((batch, groups, 2 * per_group, target), jnp.float32)]
    sums = [pltpu.VMEM((padded, width), jnp.float32)] * 2 if backward else []
    call = pl.pallas_call(
        functools.partial(kernel, target=target, source=source),
        grid=(groups, batch, pl.cdiv(target, rows)),
        in_specs=[*[queries, keys, keys, statistics, queries][: len(arrays)], table, mask],
        out_specs=[queries, keys, keys] if backward else [queries, statistics],
        out_shape=[jax.ShapeDtypeStruct(*each) for each in out_shapes],
        scratch_shapes=sums,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=VMEM_LIMIT,
        ),
        cost_estimate=cost(
            batch,
            groups * per_group,
            target,
            source,
            width // per_group,
            query.dtype.itemsize,
            backward,
        ),
        interpret=interpret,
        name="flash_attention_backward" if backward else "flash_attention",
    )
    return tuple(call(*arrays, tables, row))


def _forward_kernel(
    query_ref: Any,
    key_ref: Any,
    value_ref: Any,
    tables_ref: Any,
    row_ref: Any,
    output_ref: Any,
    statistics_ref: Any,
    *,
    target: int,
    source: int,
) -> None:
    del target
    keys, values = _inside(key_ref, 0, source), _inside(value_ref, 0, source)
    hidden = _column(row_ref)
    for h, lanes in _heads(tables_ref, query_ref):
        logits = _logits(query_ref[0, :, lanes], keys[:, lanes], tables_ref, h, hidden)
        largest = jnp.max(logits, axis=0, keepdims=True)  # [1, rows]
        weights = jnp.exp(logits - largest)
        inverse = 1 / jnp.sum(weights, axis=0, keepdims=True)
        statistics_ref[0, 0, 2 * h : 2 * h + 1] = largest
        statistics_ref[0, 0, 2 * h + 1 : 2 * h + 2] = inverse
        weights = weights.astype(values.dtype)
        output = _dot(values[:, lanes], weights, 0, 0) * inverse  # [head_dim, rows]
        output_ref[0, :, lanes] = output.T.astype(output_ref.dtype)


def _backward_kernel(
    query_ref: Any,
    key_ref: Any,
    value_ref: Any,
    statistics_ref: Any,
    cotangent_ref: Any,
    tables_ref: Any,
    row_ref: Any,
    d_query_ref: Any,
    d_key_ref: Any,
    d_value_ref: Any,
    d_key_sum: Any,
    d_value_sum: Any,
    *,
    target: int,
    source: int,
) -> None:
    block, dtype = pl.program_id(2), query_ref.dtype
    first = block * query_ref.shape[1]

    @pl.when(block == 0)
    def _() -> None:
        d_key_sum[...] = jnp.zeros_like(d_key_sum)
        d_value_sum[...] = jnp.zeros_like(d_value_sum)

    keys, values = _inside(key_ref, 0, source), _inside(value_ref, 0, source)
    queries, cotangents = (_inside(ref, first, target) for ref in (query_ref, cotangent_ref))
    statistics = _inside(statistics_ref.at[0], first, target, axis=1)
    hidden = _column(row_ref)
    for h, lanes in _heads(tables_ref, query_ref):
        query, key, cotangent = queries[:, lanes], keys[:, lanes], cotangents[:, lanes]
        largest, inverse = statistics[2 * h : 2 * h + 1], statistics[2 * h + 1 : 2 * h + 2]
        logits = _logits(query, key, tables_ref, h, hidden)
        weights = jnp.exp(logits - largest) * inverse
        d_value_sum[:, lanes] += _dot(weights.astype(dtype), cotangent, 1, 0)
        d_weights = _dot(values[:, lanes], cotangent, 1, 1)
        mean = jnp.sum(weights * d_weights, axis=0, keepdims=True)
        d_logits = (weights * (d_weights - mean)).astype(dtype)
        d_query_ref[0, :, lanes] = _dot(key, d_logits, 0, 0).T.astype(dtype)
        d_key_sum[:, lanes] += _dot(d_logits, query, 1, 0)

    @pl.when(block == pl.num_programs(2) - 1)
    def _() -> None:
        d_key_ref[0] = d_key_sum[...].astype(dtype)
        d_value_ref[0] = d_value_sum[...].astype(dtype)


def _heads(tables_ref: Any, query_ref: Any) -> list[tuple[int, slice]]:
    """Returns the heads of a group, each with its lanes."""
    per_group = tables_ref.shape[1]
    dim = query_ref.shape[2] // per_group
    return [(h, slice(h * dim, (h + 1) * dim)) for h in range(per_group)]


def _inside(ref: Any, first: Any, length: int, axis: int = 0) -> Array:
    """Returns a block that starts at `first`, with zeros beyond the array's `length`."""
    x = ref[0]
    if length % x.shape[axis] == 0:
        return x
    position = first + jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
    return jnp.where(position < length, x, jnp.zeros_like(x))


def _column(row_ref: Any) -> Array:
    """Returns the mask's row as a column, [source, 128] with equal lanes."""
    row = row_ref[0]
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T


def _logits(query: Array, key: Array, tables_ref: Any, h: int, hidden: Array) -> Array:
    """Returns the logits with bias and mask, [source, rows]."""
    rows, source = len(query), len(key)
    first = pl.program_id(2) * rows + source - LANES
    bias = [
        tables_ref[0, h, :, pl.ds(pl.multiple_of(first - i, LANES), rows)]
        for i in range(0, source, LANES)
    ]
    logits = _dot(key, query, 1, 1) + jnp.concatenate(bias)
    return logits + jnp.concatenate([hidden] * (rows // LANES), axis=1)


def _dot(x: Array, y: Array, x_axis: int, y_axis: int) -> Array:
    """Returns the product of two matrices, summed over an axis of each, in float32."""
    dimensions = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)
