"""Sharding rules: one table from logical axes to mesh axes, and functions that apply it.

Tensor parallelism (Shoeybi et al., 2019) shards heads, the feed-forward block's hidden width, and
the vocabulary over `model`: each half of a layer needs one all-reduce of activations over `model`
and none of weights. Optionally, the embedding width of every weight is sharded over `data` too
(FSDP; Zhao et al., 2023): a device then stores a 1/devices share of the model and gathers each
layer's weights when it needs them.

Trainable parameters are small and replicated, except weights of the model itself, which are sharded
like the frozen ones. `mesh.shard_batch` shards a batch. Axis names are from `prompt_tuning.axes`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from prompt_tuning import axes
from prompt_tuning.parallel.mesh import DATA_AXIS, MODEL_AXIS

RULES: dict[str, str | None] = {
    axes.BATCH: DATA_AXIS,
    axes.HEADS: MODEL_AXIS,
    axes.MLP: MODEL_AXIS,
    axes.VOCAB: MODEL_AXIS,
    axes.EMBED: None,  # `data` under FSDP
    axes.BLOCKS: None,  # `data` under FSDP
    axes.HEAD_DIM: None,
    axes.LAYER: None,
    axes.BUCKETS: None,
    axes.PROMPT: None,
    axes.SOURCE: None,
    axes.TARGET: None,
}
"""Mesh axis of each logical axis; None for replicated axes."""

AxesOf = Callable[[str], tuple[str | None, ...]]
"""Maps a parameter's "/"-joined name to its logical axes; see `models.config.parameter_axes`."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The sharding of the frozen weights over a mesh.

    Attributes:
      mesh: the devices, or only their number along each axis.
      axes_of: returns the logical axes of a parameter.
      fsdp: shard weights over `data` as well.
    """

    mesh: Mesh | AbstractMesh
    axes_of: AxesOf
    fsdp: bool = False

    def sharding_of(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
        """Returns the `NamedSharding` of one parameter; `load_frozen` takes this function.

        An axis whose length the mesh axis doesn't divide is not sharded; `unsplit` reports it.
        """
        places = [
            mesh_axis if mesh_axis and length % self.mesh.shape[mesh_axis] == 0 else None
            for length, mesh_axis in zip(shape, self._mesh_axes(name), strict=True)
        ]
        return NamedSharding(self.mesh, PartitionSpec(*places))

    def shardings(self, params: PyTree) -> PyTree:
        """Returns the sharding of every parameter of a tree of arrays or of their shapes."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self.sharding_of(_name(path), leaf.shape), params
        )

    def trained_shardings(self, trained: PyTree, params: PyTree) -> PyTree:
        """Returns the shardings of trainable parameters, or of a training state that contains them.

        Leaves with the name and shape of a parameter of the model, such as weights in model tuning
        and their optimizer moments, are sharded like it; the rest is replicated.

        Args:
          trained: a tree of arrays or of their shapes.
          params: the model's parameters.
        """
        shapes = {
            _name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }

        def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
            name = str(getattr(path[-1], "key", "")) if path else ""
            if shapes.get(name) == leaf.shape:
                return self.sharding_of(name, leaf.shape)
            return NamedSharding(self.mesh, PartitionSpec())

        return jax.tree_util.tree_map_with_path(sharding, trained)

    def abstract(self, params: PyTree) -> PyTree:
        """Returns shapes and dtypes of a tree with their shardings, to lower a program with."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            params,
            self.shardings(params),
        )

    def constrain(self, x: jax.Array, logical_axes: tuple[str | None, ...]) -> jax.Array:
        """Constrains activations to the table under FSDP.

        Otherwise the compiler may propagate the weights' sharding instead: shard activations by
        width and gather every batch on every device. Without FSDP it does well by itself.
        """
        if not self.fsdp:
            return x
        places = [None if axis is None else RULES[axis] for axis in logical_axes]
        sharding = NamedSharding(self.mesh, PartitionSpec(*places))
        return jax.lax.with_sharding_constraint(x, sharding)

    def scatter(self, x: jax.Array) -> jax.Array:
        """Returns `x`, [batch, ..., embed], with `embed` sharded over `model`, if it can be."""
        return self._last_axis(x, MODEL_AXIS)

    def gather(self, x: jax.Array) -> jax.Array:
        """Returns `x` with `embed` replicated over `model`."""
        return self._last_axis(x, None)

    def _last_axis(self, x: jax.Array, mesh_axis: str | None) -> jax.Array:
        devices = self.mesh.shape[MODEL_AXIS]
        if devices == 1 or x.shape[-1] % devices:
            return x
        spec = PartitionSpec(DATA_AXIS, *(None,) * (x.ndim - 2), mesh_axis)
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def by_shard(
        self,
        f: Callable[..., jax.Array],
        logical_axes: Sequence[tuple[str | None, ...]],
        out: tuple[str | None, ...],
    ) -> Callable[..., jax.Array]:
        """Returns `f` as a function that every device applies to its shards of the arguments.

        For kernels, which the compiler can't partition.

        Args:
          f: maps arrays to one array, independently along each sharded axis.
          logical_axes: those of every argument.
          out: those of the result, of which at least one argument has the lengths.
        """

        def by_shard(*arrays: jax.Array) -> jax.Array:
            lengths = {
                axis: length
                for x, places in zip(arrays, logical_axes, strict=True)
                for length, axis in zip(x.shape, places, strict=True)
            }

            def spec(places: tuple[str | None, ...]) -> PartitionSpec:
                return PartitionSpec(*(self._mesh_axis(axis, lengths[axis]) for axis in places))

            specs = tuple(map(spec, logical_axes))
            return jax.shard_map(
                f, mesh=self.mesh, in_specs=specs, out_specs=spec(out), check_vma=False
            )(*arrays)

        return by_shard

    def unsplit(self, params: PyTree) -> list[str]:
        """Returns a line for each logical axis that can't be sharded as in the table.

        Its parameters are replicated over that mesh axis: results are the same, at a cost in memory
        and time.
        """
        lengths = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            name = _name(path)
            for axis, length, mesh_axis in zip(
                self.axes_of(name), leaf.shape, self._mesh_axes(name), strict=True
            ):
                if mesh_axis and length % self.mesh.shape[mesh_axis]:
                    lengths[axis, mesh_axis] = length
        return [
            f"The model's {axis} ({length}) can't be split {self.mesh.shape[mesh_axis]} ways: "
            f"arrays with that axis are replicated along the mesh axis '{mesh_axis}'."
            for (axis, mesh_axis), length in lengths.items()
        ]

    def _mesh_axis(self, axis: str | None, length: int) -> str | None:
        """Returns the mesh axis of an activation's axis; None if it doesn't divide the length."""
        mesh_axis = None if axis is None else RULES[axis]
        return mesh_axis if mesh_axis and length % self.mesh.shape[mesh_axis] == 0 else None

    def _mesh_axes(self, name: str) -> list[str | None]:
        """Returns the table's mesh axis for each axis of a parameter."""
        split = {axes.EMBED: DATA_AXIS, axes.BLOCKS: DATA_AXIS} if self.fsdp else {}
        table = {**RULES, **split}
        return [None if axis is None else table[axis] for axis in self.axes_of(name)]


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(key.key) for key in path)
