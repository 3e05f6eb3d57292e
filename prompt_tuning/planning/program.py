"""Compiles a training step for devices that aren't available, without creating any weights.

The step is lowered on shapes sharded over a mesh of emulated CPU devices, and the compiled program
is analyzed. A CPU's program isn't an accelerator's: layouts, fusions, scheduling and therefore
workspace differ. Weights, saved activations, FLOPs and collectives don't.

XLA reads the number of devices to emulate when a process starts (`prompt_tuning/cli/plan.py`).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Method
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, parameter_axes
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.parallel.mesh import DATA_AXIS, MODEL_AXIS, check_batch, make_mesh
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.planning.hlo import Collective, Program
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

_COMPILER_OPTIONS: dict[str, str | bool | int | float] = {
    # The same program on every machine, scheduled for low memory as on an accelerator.
    "xla_cpu_max_isa": "AVX2",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # The program is never run, so its machine code needn't be fast.
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A training step to plan.

    Attributes:
      config, compute: architecture and numerics of the frozen model.
      method, optimizer, loss: of the tuning.
      batch_size: examples per step, in `accumulation_steps` microbatches.
      input_length, target_length: in tokens.
      tasks: number of tasks in the mixture.
      model_parallel, data_parallel, fsdp: as in `make_mesh` and `Layout`.
    """

    config: T5Config
    compute: Compute
    method: Method
    optimizer: optax.GradientTransformation
    loss: LossOptions
    batch_size: int
    input_length: int
    target_length: int
    accumulation_steps: int = 1
    tasks: int = 1
    model_parallel: int = 1
    data_parallel: int = 1
    fsdp: bool = False

    @property
    def devices(self) -> int:
        """The number of devices."""
        return self.model_parallel * self.data_parallel

    def weights(self) -> PyTree:
        """Returns the shapes and dtypes of the frozen weights."""
        return abstract_params(self.config, self.compute)

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of a batch."""
        tokens = {
            "encoder_input_tokens": (self.input_length, jnp.int32),
            "decoder_input_tokens": (self.target_length, jnp.int32),
            "decoder_target_tokens": (self.target_length, jnp.int32),
            "decoder_loss_weights": (self.target_length, jnp.float32),
        }
        batch = {
            name: jax.ShapeDtypeStruct((self.batch_size, length), dtype)
            for name, (length, dtype) in tokens.items()
        }
        if self.tasks > 1:
            batch["task"] = jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)
        return batch

    def state(self) -> TrainState:
        """Returns the shapes and dtypes of the training state."""

        def create(key, batch):
            return TrainState.create(self.method.init(key, batch), self.optimizer)

        return jax.eval_shape(create, jax.random.key(0), self.batch())

    @property
    def prompt_length(self) -> int:
        """The number of positions that the method adds to the encoder's input."""
        lengths: list[int] = []

        def trace(trained: PyTree, batch: Any) -> None:
            injection = self.method.apply(trained, batch)
            lengths.append(injection.encoder_prompt_length + injection.encoder_suffix_length)

        jax.eval_shape(trace, self.state().trained, self.batch())
        return lengths[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """All collectives of one kind along the same mesh axes, in one step.

    Attributes:
      kind: one of `COLLECTIVES`, such as "all-reduce".
      along: a mesh axis, or both.
      times: number of executions.
      bytes: total size of their results per device.
      sent: total bytes that a device sends.
    """

    kind: str
    along: str
    times: int
    bytes: int
    sent: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """Memory, computation and communication of a step per device. Sizes are in bytes.

    Attributes:
      weights: the device's shard of the frozen weights.
      all_weights: the frozen weights on all devices.
      state: the training state.
      batch: the device's shard of the batch.
      activations: saved by the layers' loops for the backward pass.
      workspace: all other memory.
      flops: of matrix products.
      moved: bytes that matrix products read and write.
      traffic: communication.
      unsplit: a line for each parameter that can't be sharded over the mesh.
    """

    weights: int
    all_weights: int
    state: int
    batch: int
    activations: int
    workspace: int
    flops: int
    moved: int
    traffic: tuple[Traffic, ...]
    unsplit: tuple[str, ...] = ()

    @property
    def memory(self) -> int:
        """The total memory."""
        return self.weights + self.state + self.batch + self.activations + self.workspace


def layout_of(work: Work) -> Layout:
    """Returns the layout of the weights on the first of this process's devices.

    Raises:
      UserError: the batch size isn't divisible by the devices and `accumulation_steps`.
    """
    mesh = make_mesh(
        model=work.model_parallel,
        data=work.data_parallel,
        devices=jax.devices()[: work.devices],
    )
    if work.batch_size % work.accumulation_steps:
        raise UserError(
            f"A batch of {work.batch_size} examples can't be cut into {work.accumulation_steps} "
            "equal parts; set BATCH_SIZE to a multiple of train.accumulation_steps."
        )
    check_batch(work.batch_size, mesh, work.accumulation_steps)
    return Layout(mesh=mesh, axes_of=parameter_axes, fsdp=work.fsdp)


def weights_on_device(work: Work) -> int:
    """Returns the bytes of the frozen weights per device, without compiling."""
    mesh = AbstractMesh(
        (work.data_parallel, work.model_parallel),
        (DATA_AXIS, MODEL_AXIS),
        axis_types=(AxisType.Auto,) * 2,
    )
    layout = Layout(mesh=mesh, axes_of=parameter_axes, fsdp=work.fsdp)
    return _bytes_on_device(layout.abstract(work.weights()))


def needs_of(work: Work) -> Needs:
    """Compiles the step and returns its needs.

    Raises:
      UserError: as for `layout_of`.
    """
    layout = layout_of(work)
    mesh = layout.mesh
    assert isinstance(mesh, Mesh)
    weights = layout.abstract(work.weights())
    state = _laid_out(work.state(), mesh, PartitionSpec())
    batch = _laid_out(work.batch(), mesh, PartitionSpec(DATA_AXIS))
    key = _laid_out(jax.eval_shape(lambda: jax.random.key(0)), mesh, PartitionSpec())

    # Always make layers a loop: its saved activations can be identified, and it compiles fast.
    emulated = _in_half_precision(dataclasses.replace(work.compute, unroll=1))
    model = T5(work.config, emulated, *([layout.constrain] if work.fsdp else []))
    step = make_train_step(
        prompt_loss_fn(model, work.method, work.loss),
        work.optimizer,
        work.accumulation_steps,
    )
    lowered = step.lower(state, jax.tree.map(_in_float16, weights), batch, key)
    compiled = lowered.compile(compiler_options=_COMPILER_OPTIONS)
    memory = compiled.memory_analysis()
    program = Program(compiled.as_text(), mesh)

    activations = program.kept_bytes()
    products = list(program.products())
    read = jnp.dtype(work.compute.product_dtype).itemsize
    written = jnp.dtype(work.compute.compute_dtype).itemsize
    return Needs(
        weights=_bytes_on_device(weights),
        all_weights=sum(_bytes(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(weights)),
        state=_bytes_on_device(state),
        batch=_bytes_on_device(batch),
        activations=activations,
        workspace=memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        - activations,
        flops=sum(product.times * product.flops for product in products),
        moved=sum(p.times * (p.inputs * read + p.output * written) for p in products),
        traffic=_traffic(program.collectives()),
        unsplit=tuple(layout.unsplit(weights)),
    )


class _HalfPrecision(Compute):
    """A `Compute` that allows float16, although T5 can't be trained in it."""

    def __post_init__(self) -> None:
        """Skips the checks of `Compute`."""


def _in_half_precision(compute: Compute) -> Compute:
    """Returns `compute` with float16 in place of bfloat16.

    On CPUs without bfloat16 instructions, XLA makes float32 copies of bfloat16 weights, unlike on
    accelerators; float16 has the same size and isn't converted.
    """
    values: dict[str, Any] = dataclasses.asdict(compute)
    values |= {name: "float16" for name, value in values.items() if value == "bfloat16"}
    return _HalfPrecision(**values)


def _in_float16(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    dtype = jnp.float16 if leaf.dtype == jnp.bfloat16 else leaf.dtype
    return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)


def _laid_out(tree: PyTree, mesh: Mesh, spec: PartitionSpec) -> PyTree:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _bytes_on_device(tree: PyTree) -> int:
    return sum(
        _bytes(leaf.sharding.shard_shape(leaf.shape), leaf.dtype) for leaf in jax.tree.leaves(tree)
    )


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size


def _traffic(collectives: Iterable[Collective]) -> tuple[Traffic, ...]:
    """Sums the collectives by kind and mesh axes, in descending order of bytes."""
    sums: dict[tuple[str, str], list[Collective]] = {}
    for collective in collectives:
        along = " and ".join(collective.axes)
        sums.setdefault((collective.kind, along), []).append(collective)
    found = [
        Traffic(
            kind=kind,
            along=along,
            times=sum(c.times for c in group),
            bytes=sum(c.times * c.bytes for c in group),
            sent=sum(c.times * c.sent for c in group),
        )
        for (kind, along), group in sums.items()
    ]
    return tuple(sorted(found, key=lambda traffic: -traffic.bytes))
