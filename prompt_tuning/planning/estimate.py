"""Estimates a step's time on a machine, whether it fits, and changes to make it fit."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from prompt_tuning.errors import UserError
from prompt_tuning.models.targets import projections, select_targets
from prompt_tuning.planning.machines import Machine
from prompt_tuning.planning.program import Needs, Work, needs_of, weights_on_device

USABLE = 0.92
"""Usable share of a device's memory; the rest is for the runtime and fragmentation. The TPU's
compiler knows what is usable, and refuses what isn't."""

SHORTEST_INPUT = 64
"""The shortest input length to suggest, in tokens."""

ASSUMED_SHARE = 0.5
"""Assumed share of the peak FLOP/s where the accelerator's compiler isn't installed."""


class Seconds(NamedTuple):
    """The estimated time per step of the kernels, and of communication at the peak rate.

    `pallas` is the part of `compute` that the TPU's compiler doesn't estimate.
    """

    compute: float
    communication: float
    pallas: float

    @property
    def step(self) -> float:
        """The sum: nothing is assumed to overlap."""
        return self.compute + self.communication


def seconds_of(needs: Needs, work: Work, machine: Machine) -> Seconds | None:
    """Returns the estimated time per step on a machine; None if the step was refused."""
    accelerator, analysis = machine.accelerator, needs.analysis
    if analysis is None:
        return None
    if needs.compiler == "cpu":
        # Products of float32 inputs run at about half the rate: TF32 on GPUs; on TPUs it depends on
        # jax_default_matmul_precision.
        halves = 1 if work.compute.product_dtype == "bfloat16" else 2
        compute, pallas = halves * analysis.flops / (ASSUMED_SHARE * accelerator.flops), 0.0
    else:
        compute = analysis.seconds(accelerator)
        pallas = analysis.seconds(accelerator, pallas_only=True)
    sent = sum(traffic.sent for traffic in needs.traffic)
    return Seconds(compute, sent / accelerator.interconnect_bandwidth, pallas)


def room_of(machine: Machine, compiler: str) -> float:
    """Returns the bytes of a device's memory that a step may use."""
    return machine.accelerator.memory * (1 if compiler == "tpu" else USABLE)


def fits(needs: Needs, machine: Machine) -> bool:
    """Whether the step fits in a device's memory."""
    return not needs.refusal and needs.memory <= room_of(machine, needs.compiler)


class Attempt(NamedTuple):
    """A change that was tried, on top of earlier changes that helped.

    Attributes:
      change: the setting to change, as text.
      memory: bytes per device with the change. If `compiled` is False, only those of the weights,
        which already exceed the device's memory.
      fits: whether the step fits with the change.
      kept: whether later attempts include the change.
      seconds: estimated time per step, if it was compiled and not refused.
    """

    change: str
    memory: int
    compiled: bool
    fits: bool
    kept: bool
    seconds: float | None


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
    heads = [each.outputs[0] for each in select_targets(projections(config), ("query",))]
    while work.devices % model == 0 and not any(number % model for number in heads):
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
    work: Work,
    needs: Needs,
    machine: Machine,
    devices: Sequence[Any] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Attempt]:
    """Tries one change after another, compiling each, until the step fits.

    While the weights don't fit, only changes that shrink them are tried, and nothing is compiled.
    A change that doesn't save memory is not kept.
    """
    attempts: list[Attempt] = []
    room = room_of(machine, needs.compiler)
    current, best = work, needs.memory
    pending = list(changes(work))
    while not (attempts and attempts[-1].fits):
        weights = weights_on_device(current)
        useful = (
            item
            for item in pending
            if weights <= room or weights_on_device(item[1](current)) < weights
        )
        if (item := next(useful, None)) is None:
            break
        pending.remove(item)
        change, changed = item[0], item[1](current)
        progress(f"Trying {change}")
        memory, found, seconds = weights_on_device(changed), None, None
        if memory <= room:
            try:
                found = needs_of(changed, devices)
            except UserError:  # combined with another change, the batch isn't divisible
                continue
            memory, seconds = found.memory, seconds_of(found, changed, machine)
        fitting, kept = found is not None and fits(found, machine), memory < best
        step = seconds.step if seconds else None
        attempts.append(Attempt(change, memory, found is not None, fitting, kept, step))
        if kept:
            current, best = changed, memory if found else best
    return attempts
