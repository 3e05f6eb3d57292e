"""Compiles a training step for devices that aren't available, without creating any weights.

The step is lowered on shapes sharded over a mesh of devices that a compiler knows, and the compiled
program is analyzed. The devices are an accelerator's (`prompt_tuning.planning.compilers`), or
emulated CPU devices, whose program has other layouts, fusions and scheduling.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Method
from prompt_tuning.models import auto
from prompt_tuning.models.compute import AUTO, Compute
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import ModelConfig, parameter_axes
from prompt_tuning.parallel.mesh import DATA_AXIS, MODEL_AXIS, check_batch, make_mesh
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.planning.compilers import Analysis, DoesNotFit, compiled
from prompt_tuning.planning.hlo import Collective
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn


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

    config: ModelConfig
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


class Traffic(NamedTuple):
    """All collectives of one kind along the same mesh axes: executions, bytes received and sent."""

    kind: str
    along: str
    times: int
    bytes: int
    sent: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What a step needs of each device. Sizes are in bytes.

    Attributes:
      weights: the device's shard of the frozen weights.
      all_weights: the frozen weights on all devices.
      state: the training state.
      batch: the device's shard of the batch.
      temporaries: all other memory: activations saved for the backward pass, and workspace.
      compiler: "tpu", "gpu" or "cpu".
      traffic: communication.
      analysis: of the compiled program; None if the compiler refused it.
      refusal: the compiler's, in one line.
      unsplit: a line for each parameter that can't be sharded over the mesh.
    """

    weights: int
    all_weights: int
    state: int
    batch: int
    temporaries: int
    compiler: str
    traffic: tuple[Traffic, ...] = ()
    analysis: Analysis | None = None
    refusal: str = ""
    unsplit: tuple[str, ...] = ()

    @property
    def memory(self) -> int:
        """The total memory."""
        return self.weights + self.state + self.batch + self.temporaries


def weights_on_device(work: Work) -> int:
    """Returns the bytes of the frozen weights per device, without compiling."""
    mesh = AbstractMesh(
        (work.data_parallel, work.model_parallel),
        (DATA_AXIS, MODEL_AXIS),
        axis_types=(AxisType.Auto,) * 2,
    )
    layout = Layout(mesh=mesh, axes_of=parameter_axes, fsdp=work.fsdp)
    return _bytes_on_device(layout.abstract(work.weights()))


def work_with_remat(work: Work, memory: int | float) -> Work:
    """Returns the step with `remat` as training decides it on devices with this many bytes."""
    if work.compute.remat != AUTO:
        return work
    trained = work.state().trained
    kept = auto.kept_bytes(
        work.config,
        work.compute,
        rows=work.batch_size / work.accumulation_steps / work.data_parallel,
        source=work.input_length + work.prompt_length,
        target=work.target_length,
        model_parallel=work.model_parallel,
        trained=trained,
    )
    added = 3 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trained))
    remat = auto.needs_remat(kept, weights_on_device(work) + added, memory)
    return dataclasses.replace(work, compute=dataclasses.replace(work.compute, remat=remat))


def needs_of(work: Work, devices: Sequence[Any] | None = None) -> Needs:
    """Compiles the step and returns its needs.

    Args:
      work: the step.
      devices: to compile for; the first of this process's if None.

    Raises:
      UserError: the batch size isn't divisible by the devices and `accumulation_steps`.
    """
    mesh = make_mesh(
        model=work.model_parallel,
        data=work.data_parallel,
        devices=(devices or jax.devices())[: work.devices],
    )
    if work.batch_size % work.accumulation_steps:
        raise UserError(
            f"A batch of {work.batch_size} examples can't be cut into {work.accumulation_steps} "
            "equal parts; set BATCH_SIZE to a multiple of train.accumulation_steps."
        )
    check_batch(work.batch_size, mesh, work.accumulation_steps)
    layout = Layout(mesh=mesh, axes_of=parameter_axes, fsdp=work.fsdp)
    weights = layout.abstract(work.weights())
    state = _laid_out(work.state(), mesh, PartitionSpec())
    batch = _laid_out(work.batch(), mesh, PartitionSpec(DATA_AXIS))
    key = _laid_out(jax.eval_shape(lambda: jax.random.key(0)), mesh, PartitionSpec())
    needs = Needs(
        weights=_bytes_on_device(weights),
        all_weights=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(weights)),
        state=_bytes_on_device(state),
        batch=_bytes_on_device(batch),
        temporaries=0,
        compiler=mesh.devices.flat[0].platform,
        unsplit=tuple(layout.unsplit(weights)),
    )

    model = model_of(work.config, work.compute, layout)
    loss_fn = prompt_loss_fn(model, work.method, work.loss)
    step: Any = make_train_step(loss_fn, work.optimizer, work.accumulation_steps)
    try:
        analysis = compiled(step.lower(state, weights, batch, key))
    except DoesNotFit as error:
        temporaries = error.needed - (0 if error.temporaries_only else needs.memory)
        return dataclasses.replace(needs, temporaries=temporaries, refusal=str(error))
    return dataclasses.replace(
        needs,
        # Arguments are padded to an accelerator's tiles; that counts here.
        temporaries=analysis.memory - needs.memory,
        traffic=_traffic(analysis.program.collectives(mesh)),
        analysis=analysis,
    )


def _laid_out(tree: PyTree, mesh: Mesh, spec: PartitionSpec) -> PyTree:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _bytes_on_device(tree: PyTree) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _traffic(collectives: Iterable[Collective]) -> tuple[Traffic, ...]:
    """Sums the collectives by kind and mesh axes, in descending order of bytes."""
    sums: dict[tuple[str, str], Traffic] = {}
    for each in collectives:
        kind, along = key = each.kind, " and ".join(each.axes)
        _, _, times, size, sent = sums.get(key, (kind, along, 0, 0, 0.0))
        size, sent = size + each.times * each.bytes, sent + each.times * each.sent
        sums[key] = Traffic(kind, along, times + each.times, size, sent)
    return tuple(sorted(sums.values(), key=lambda traffic: -traffic.bytes))
