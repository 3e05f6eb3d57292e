"""The device mesh, `data` x `model`, and the sharding of batches and small arrays.

The rows of a batch are sharded over `data`, weights over `model` (tensor parallelism, `rules.py`).
Steps are ordinary `jax.jit` functions: XLA partitions them by the shardings of their arguments.
`model` is the inner axis, so that its devices, which communicate most, are on one host if it has
enough of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree, Shaped

from prompt_tuning.errors import UserError, at_least

DATA_AXIS = "data"
MODEL_AXIS = "model"


def make_mesh(
    *, model: int = 1, data: int | None = None, devices: Sequence[Any] | None = None
) -> Mesh:
    """Returns a mesh of every device.

    Args:
      model: number of devices that share one copy of the model (MODEL_PARALLEL).
      data: number of groups of such devices, each with its share of a batch (DATA_PARALLEL); the
        maximum if None.
      devices: all devices of all processes if None.

    Raises:
      UserError: `model` times `data` isn't the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    count = len(devices)
    at_least(1, {"MODEL_PARALLEL": model, "DATA_PARALLEL": data})
    if data is None and count % model:
        raise UserError(
            f"MODEL_PARALLEL is {model}, and {_count(count, 'device')} can't be divided into "
            f"groups of {model}; set it to {' or '.join(map(str, _divisors(count)))}."
        )
    data = count // model if data is None else data
    if data * model != count:
        raise UserError(
            f"DATA_PARALLEL {data} x MODEL_PARALLEL {model} is {_count(data * model, 'device')}, "
            f"but there {'is' if count == 1 else 'are'} {count}; leave DATA_PARALLEL out to use "
            "them all."
        )
    return jax.make_mesh(
        (data, model), (DATA_AXIS, MODEL_AXIS), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def check_batch(batch_size: int, mesh: Mesh | AbstractMesh, accumulation_steps: int = 1) -> None:
    """Checks that a batch can be sharded evenly over `data`.

    Raises:
      UserError: it can't, or its microbatches can't.
    """
    shares = mesh.shape[DATA_AXIS]
    if batch_size % shares:
        groups = "devices" if mesh.size == shares else f"groups of {mesh.shape[MODEL_AXIS]} devices"
        raise UserError(
            f"A batch of {batch_size} examples can't be divided evenly among {shares} {groups}; "
            f"set BATCH_SIZE to a multiple of {shares}, or a larger MODEL_PARALLEL."
        )
    if batch_size % accumulation_steps == 0 and batch_size // accumulation_steps % shares:
        raise UserError(
            f"A microbatch of {batch_size // accumulation_steps} examples (BATCH_SIZE "
            f"{batch_size} in {accumulation_steps} accumulation steps) can't be divided evenly "
            f"among {shares} devices; set BATCH_SIZE to a multiple of "
            f"{shares * accumulation_steps}."
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a replicated array."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Replicates every array on every device; all processes must pass the same values."""
    return _place(tree, mesh, PartitionSpec())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Shards every array's first axis, the rows of a batch, over the devices.

    Every process passes the same whole batch, and keeps the rows of its own devices.
    """
    return _place(batch, mesh, PartitionSpec(DATA_AXIS))


def gathered(array: jax.Array) -> np.ndarray:
    """Returns a sharded array as a whole on every process.

    All processes must call it, and each needs memory for the whole array.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def values_at(
    array: jax.Array, places: tuple[Int[np.ndarray, "values"], ...]
) -> Shaped[np.ndarray, "values"]:
    """Returns some values of an array on every process, each read from a device that has it.

    Args:
      array: may be larger than any device's memory.
      places: an index array for each axis, as in NumPy's fancy indexing.
    """
    values = np.zeros(len(places[0]), array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            bounds = [
                part.indices(size) for part, size in zip(shard.index, array.shape, strict=True)
            ]
            pairs = list(zip(places, bounds, strict=True))
            inside = np.all([(start <= at) & (at < stop) for at, (start, stop, _) in pairs], axis=0)
            if inside.any():
                local = tuple(at[inside] - start for at, (start, _, _) in pairs)
                # On CPUs, NumPy indexes without compiling a program for each shape.
                on_host = shard.device.platform == "cpu"
                data = np.asarray(shard.data) if on_host else shard.data
                values[inside] = np.asarray(data[local])
    if array.is_fully_addressable:
        return values
    # Each value is set on one process and all-zero bits elsewhere, so OR merges them.
    bits = multihost_utils.process_allgather(values.view(np.uint8))
    return np.bitwise_or.reduce(np.asarray(bits), axis=0).view(array.dtype)


def shard_members(batch: Any, mesh: Mesh) -> Any:
    """Shards a population's batch, arrays of [members, batch, ...], over the devices.

    Whole members are sharded if they divide evenly, otherwise the rows of each member.
    """
    members = len(next(iter(batch.values())))
    by_member = members % mesh.shape[DATA_AXIS] == 0
    return _place(batch, mesh, PartitionSpec(*() if by_member else (None,), DATA_AXIS))


def _place(tree: PyTree, mesh: Mesh, spec: PartitionSpec) -> PyTree:
    # On a single device, shardings would only make JAX compile a second time, for arguments that
    # have one.
    if mesh.size == 1:
        return tree
    sharding = NamedSharding(mesh, spec)
    if not mesh.is_multi_process:
        return jax.device_put(tree, sharding)

    def place(array: Any) -> jax.Array:
        # Unlike `device_put`, this doesn't make all processes compare their values.
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)

    return jax.tree.map(place, tree)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
