"""Estimates a step's time on a machine, whether it fits, and changes to make it fit.

The time follows the roofline model (Williams et al., 2009): the maximum of the times of the matrix
products, the memory and the interconnect, each at a share of its peak that well-tuned programs
reach. It is an estimate, to be replaced by a measurement (`mfu` in `metrics.jsonl`).
"""

import dataclasses
from collections.abc import Callable, Iterator

from prompt_tuning.errors import UserError
from prompt_tuning.planning.machines import Machine
from prompt_tuning.planning.program import Needs, Work, needs_of, weights_on_device

USABLE = 0.92
"""Usable share of a device's memory; the rest is for the runtime and fragmentation."""

SHORTEST_INPUT = 64
"""The shortest input length to suggest, in tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Utilisation:
    """Assumed utilization, as shares of peak performance."""

    compute: float = 0.5
    memory: float = 0.7
    interconnect: float = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seconds:
    """The time per step of each resource, if it were the only bottleneck."""

    compute: float
    memory: float
    interconnect: float

    @property
    def step(self) -> float:
        """The maximum of all."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def limit(self) -> str:
        """The name of the resource with the maximum time."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


def seconds_of(
    needs: Needs, work: Work, machine: Machine, utilisation: Utilisation = Utilisation()
) -> Seconds:
    """Returns the estimated time per step on a machine."""
    accelerator = machine.accelerator
    # Products of float32 inputs run at about half the rate: TF32 on GPUs; on TPUs it depends on
    # jax_default_matmul_precision.
    rate = accelerator.flops if work.compute.product_dtype == "bfloat16" else accelerator.flops / 2
    sent = sum(traffic.sent for traffic in needs.traffic)
    return Seconds(
        compute=needs.flops / (rate * utilisation.compute),
        memory=needs.moved / (accelerator.memory_bandwidth * utilisation.memory),
        interconnect=sent / (accelerator.interconnect_bandwidth * utilisation.interconnect),
    )


def fits(needs: Needs, machine: Machine) -> bool:
    """Whether the step fits in a device's memory."""
    return needs.memory <= USABLE * machine.accelerator.memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """A change that was tried, on top of earlier changes that helped.

    Attributes:
      change: the setting to change, as text.
      memory: bytes per device with the change. If `compiled` is False, only those of the weights,
        which already exceed the device's memory.
      fits: whether the step fits with the change.
      kept: whether later attempts include the change.
    """

    change: str
    memory: int
    compiled: bool
    fits: bool
    kept: bool


def changes(work: Work) -> Iterator[tuple[str, Callable[[Work], Work]]]:
    """Yields changes that save memory, as text and function; the least invasive first."""
    config, compute = work.config, work.compute

    def with_compute(**fields) -> Callable[[Work], Work]:
        return lambda w: dataclasses.replace(w, compute=dataclasses.replace(w.compute, **fields))

    def with_model_parallel(model: int) -> Callable[[Work], Work]:
        data = work.devices // model
        return lambda w: dataclasses.replace(w, model_parallel=model, data_parallel=data)

    if not compute.remat:
        yield "recompute layers: --gin.frozen_model.remat=True", with_compute(remat=True)
    if not work.fsdp and work.data_parallel > 1:
        yield "--gin.FSDP=True", lambda w: dataclasses.replace(w, fsdp=True)
    model = 2 * work.model_parallel
    while work.devices % model == 0 and config.num_heads % model == 0:
        yield f"--gin.MODEL_PARALLEL={model}", with_model_parallel(model)
        model *= 2
    if compute.param_dtype == "float32" or compute.compute_dtype == "float32":
        yield (
            "bfloat16 weights and activations: --gin.frozen_model.param_dtype=bfloat16 "
            "--gin.frozen_model.compute_dtype=bfloat16",
            with_compute(param_dtype="bfloat16", compute_dtype="bfloat16", matmul_dtype=""),
        )
    parts = 2 * work.accumulation_steps
    while work.batch_size % (parts * work.data_parallel) == 0:
        yield (
            f"the batch in {parts} parts: --gin.train.accumulation_steps={parts}",
            lambda w, parts=parts: dataclasses.replace(w, accumulation_steps=parts),
        )
        parts *= 2
    if not compute.quantization and config.embed_dim % compute.quantization_block == 0:
        for name, bits in (("int8", 8), ("nf4", 4)):
            yield (
                f"kernels in {bits} bits: --gin_file=quantization/{name}.gin",
                with_compute(quantization=name),
            )
    length = work.input_length // 2
    while length >= SHORTEST_INPUT:
        yield (
            f"inputs cut to {length} tokens: --gin.TASK_FEATURE_LENGTHS="
            f"\"{{'inputs': {length}, 'targets': {work.target_length}}}\"",
            lambda w, length=length: dataclasses.replace(w, input_length=length),
        )
        length //= 2


def find_fit(
    work: Work, needs: Needs, machine: Machine, progress: Callable[[str], None] = lambda text: None
) -> list[Attempt]:
    """Tries one change after another, compiling each, until the step fits.

    While the weights don't fit, only changes that shrink them are tried, and nothing is compiled.
    A change that doesn't save memory is not kept.
    """
    attempts: list[Attempt] = []
    room = USABLE * machine.accelerator.memory
    current, weights, best = work, weights_on_device(work), needs.memory
    pending = list(changes(work))
    for only_weights in (True, False):
        for item in list(pending):
            if only_weights == (weights <= room):
                break
            change, apply = item
            changed = apply(current)
            lighter = weights_on_device(changed)
            if only_weights and lighter >= weights:
                continue
            pending.remove(item)
            progress(f"Trying {change}")
            compiled = lighter <= room
            try:
                memory = needs_of(changed).memory if compiled else lighter
            except UserError:  # combined with another change, the batch isn't divisible
                continue
            kept = memory < best
            attempts.append(
                Attempt(
                    change=change, memory=memory, compiled=compiled, fits=memory <= room, kept=kept
                )
            )
            if kept:
                current, weights = changed, lighter
                best = memory if compiled else best
            if memory <= room:
                return attempts
    return attempts
