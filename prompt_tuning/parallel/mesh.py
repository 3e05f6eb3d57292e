"""Data parallelism over the devices of one process: batches are shared out, weights are copied.

The steps are ordinary `jax.jit` functions; the layout of their arguments is all that tells XLA
to run them on many devices. The rows of a batch go along the mesh axis `data`.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from prompt_tuning.errors import UserError

DATA_AXIS = "data"


def data_mesh(batch_size: int) -> Mesh:
    """Returns a mesh of all devices along `data`.

    Raises:
      UserError: a batch of that many examples can't be shared out evenly.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"A batch of {batch_size} examples can't be shared evenly by {devices} devices; set "
            f"BATCH_SIZE to a multiple of {devices}."
        )
    return jax.make_mesh((devices,), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a copy of every array on every device."""
    return _place(tree, mesh, PartitionSpec())


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Gives each device its share of the rows, the first axis of every array."""
    return _place(batch, mesh, PartitionSpec(DATA_AXIS))


def shard_members(batch: Any, mesh: Mesh) -> Any:
    """Gives each device its share of a population's batch, [members, batch, ...] arrays.

    Whole members where they can be shared out evenly, else the rows of each member.
    """
    members = len(next(iter(batch.values())))
    by_member = members % mesh.shape[DATA_AXIS] == 0
    return _place(batch, mesh, PartitionSpec(*() if by_member else (None,), DATA_AXIS))


def _place(tree: PyTree, mesh: Mesh, spec: PartitionSpec) -> PyTree:
    # On a single device arrays are where they should be, and a layout would only make JAX
    # compile a second time, for arguments that have it.
    return tree if mesh.size == 1 else jax.device_put(tree, NamedSharding(mesh, spec))
