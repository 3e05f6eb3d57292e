"""Placement of training's arrays: on one device, or sharded over several by a layout."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from prompt_tuning.parallel.mesh import replicated, shard_batch, shard_members
from prompt_tuning.parallel.processes import vote_over
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.training.run import Member
from prompt_tuning.training.step import Batch, TrainState


class Devices:
    """The devices that a layout spans; without a layout, JAX's default device.

    Attributes:
      vote: this process's signal number -> the maximum over all processes, after the same step on
        each, so that they stop together; None on a single device.
    """

    def __init__(self, layout: Layout | None, frozen: PyTree):
        self._layout, self._frozen = layout, frozen
        # A mesh of one device needs no sharding.
        self._mesh: Any = None if layout is None or layout.mesh.size == 1 else layout.mesh
        self.vote = None if self._mesh is None else vote_over(self._mesh)

    def put(self, batch: Batch) -> Batch:
        """Puts a batch on the devices, unless it is already there."""
        if all(isinstance(array, jax.Array) for array in batch.values()):
            return batch
        return jax.device_put(batch) if self._mesh is None else shard_batch(batch, self._mesh)

    def put_members(self, batch: Batch) -> Batch:
        """Puts a batch of [members, batch, length] arrays on the devices."""
        return batch if self._mesh is None else shard_members(batch, self._mesh)

    def outputs(self, states: PyTree) -> PyTree:
        """Returns the shardings of states and metrics, the `layout` of `make_train_step`."""
        if self._layout is None or self._mesh is None:
            return None
        return self._layout.trained_shardings(states, self._frozen), replicated(self._mesh)

    def first_state(self, member: Member) -> TrainState:
        """Returns the state before the first step, in its own memory."""

        def create(trained: Any) -> TrainState:
            return TrainState.create(jax.tree.map(jnp.copy, trained), member.optimizer)

        if self._mesh is None:
            return create(member.trained)
        # In one program: several processes can't create global arrays op by op.
        shapes = jax.eval_shape(create, member.trained)
        return jax.jit(create, out_shardings=self.outputs(shapes)[0])(member.trained)
