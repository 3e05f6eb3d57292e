"""A plan as text for people and as JSON for programs."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.models.config import T5Config
from prompt_tuning.planning.estimate import (
    USABLE,
    Attempt,
    Seconds,
    Utilisation,
    find_fit,
    fits,
    seconds_of,
)
from prompt_tuning.planning.machines import Machine
from prompt_tuning.planning.program import Needs, Work

# What JAX takes of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPU_SHARE = 0.75

_NAME_WIDTH = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is known of a training step on a machine.

    train_steps: of the whole training.
    attempts: what was tried to make it fit, if it doesn't.
    """

    work: Work
    machine: Machine
    train_steps: int
    needs: Needs
    attempts: Sequence[Attempt] = ()
    utilisation: Utilisation

    @property
    def fits(self) -> bool:
        """Whether a device's memory is enough."""
        return fits(self.needs, self.machine)

    @property
    def seconds(self) -> Seconds:
        """The estimated time of a step."""
        return seconds_of(self.needs, self.work, self.machine, self.utilisation)

    @property
    def hours(self) -> float:
        """The estimated time of the training, without evaluations."""
        return self.seconds.step * self.train_steps / 3600

    @property
    def fewest_flops(self) -> int:
        """What the mathematics needs, on all devices together."""
        work = self.work
        return step_flops(
            work.config,
            batch=work.batch_size,
            prompt=work.prompt_length,
            source=work.input_length,
            target=work.target_length,
        ).total

    def to_json(self) -> dict[str, Any]:
        """Returns it as a dict that `json` can write; sizes in bytes, times in seconds."""
        work, needs = self.work, self.needs
        return {
            "model": work.config.name,
            "config": work.config.to_json(),
            "machine": self.machine.accelerator.name,
            "devices": self.machine.devices,
            "mesh": {"data": work.data_parallel, "model": work.model_parallel},
            "fsdp": work.fsdp,
            "batch_size": work.batch_size,
            "accumulation_steps": work.accumulation_steps,
            "prompt_length": work.prompt_length,
            "lengths": {"inputs": work.input_length, "targets": work.target_length},
            "device": {**dataclasses.asdict(needs), "memory": needs.memory},
            "fewest_flops": self.fewest_flops,
            "fits": self.fits,
            "usable_memory": USABLE * self.machine.accelerator.memory,
            "attempts": [dataclasses.asdict(attempt) for attempt in self.attempts],
            "utilisation": dataclasses.asdict(self.utilisation),
            "seconds": {**dataclasses.asdict(self.seconds), "step": self.seconds.step},
            "train_steps": self.train_steps,
            "hours": self.hours,
            "jax": jax.__version__,
        }

    def text(self) -> str:
        """Returns it for a console."""
        return "\n".join(line.rstrip() for line in self._lines())

    def _lines(self) -> Iterator[str]:
        work, machine = self.work, self.machine
        config = work.config
        parts = [
            f"mesh data {work.data_parallel} x model {work.model_parallel}",
            *(["FSDP"] if work.fsdp else []),
            f"batch {work.batch_size}"
            + (f" in {work.accumulation_steps} parts" if work.accumulation_steps > 1 else ""),
            f"prompt {work.prompt_length}",
            f"inputs {work.input_length}",
            f"targets {work.target_length}",
        ]
        yield f"{config.name} on {machine}: {', '.join(parts)}"
        yield (
            f"weights {_weights(config)}, activations {config.compute_dtype}, products "
            f"{config.product_dtype}, layers {'re' if config.remat else 'not re'}computed backward"
        )
        yield from self.needs.unsplit
        yield ""
        yield "memory of a device"
        yield from self._memory()
        yield ""
        yield "a step on a device"
        yield from self._step()
        yield ""
        yield from self._time_lines()
        yield ""
        yield from self._verdict()

    def _memory(self) -> Iterator[str]:
        needs = self.needs
        yield _row("frozen weights", _size(needs.weights), f"{_size(needs.all_weights)} in all")
        yield _row("prompt, optimizer", _size(needs.state))
        yield _row("batch", _size(needs.batch))
        yield _row("activations", _size(needs.activations), "kept for the backward pass")
        yield _row("workspace", _size(needs.workspace))
        memory = self.machine.accelerator.memory
        share = needs.memory / memory
        yield _row("in all", _size(needs.memory), f"{share:.0%} of {_size(memory)}")

    def _step(self) -> Iterator[str]:
        needs = self.needs
        ratio = needs.flops * self.machine.devices / self.fewest_flops
        yield _row("FLOPs", _number(needs.flops), f"{ratio:.2f} times the fewest there can be")
        yield _row("bytes moved", _size(needs.moved), "read and written by matrix products")
        if not needs.traffic:
            yield _row("collectives", "none")
        for traffic in needs.traffic:
            yield _row(
                traffic.kind,
                _size(traffic.bytes),
                f"{traffic.times} times, along {traffic.along}; {_size(traffic.sent)} sent",
            )

    def _time_lines(self) -> Iterator[str]:
        seconds, used = self.seconds, self.utilisation
        yield (
            f"time of a step, estimated: at {used.compute:.0%} of the peak FLOP/s, "
            f"{used.memory:.0%} of the memory's, {used.interconnect:.0%} of the interconnect's rate"
        )
        yield _row("matrix products", _time(seconds.compute))
        yield _row("memory", _time(seconds.memory))
        yield _row("interconnect", _time(seconds.interconnect))
        yield _row("a step", _time(seconds.step), f"limited by {_LIMITS[seconds.limit]}")
        yield _row(f"{self.train_steps:,} steps", _time(3600 * self.hours), "without evaluations")
        if self.machine.across_hosts:
            yield (
                "  The interconnect's figure is NVLink's, which connects 8 GPUs; across hosts the "
                "network's rate counts."
            )

    def _verdict(self) -> Iterator[str]:
        room, memory = self.machine.accelerator.memory, self.needs.memory
        if self.fits:
            yield (
                f"It fits: {_size(memory)} of {_size(room)}, of which {USABLE:.0%} count as usable."
            )
            if self.machine.is_gpu and memory > _GPU_SHARE * room:
                yield (
                    f"JAX takes {_GPU_SHARE:.0%} of a GPU by default: set "
                    f"XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE}."
                )
        else:
            yield (
                f"It doesn't fit: {_size(memory)} are more than the {USABLE:.0%} of {_size(room)} "
                "that count as usable."
            )
            for number, attempt in enumerate(self.attempts, 1):
                result = "fits" if attempt.fits else "too much"
                what = "" if attempt.compiled else ", the weights alone"
                left_out = "" if attempt.kept else "; left out again"
                yield f"  {number}. {attempt.change}"
                yield f"     {_size(attempt.memory)}{what}: {result}{left_out}"
            if self.attempts and not self.attempts[-1].fits:
                yield "Nothing that was tried fits: take more devices, or larger ones."
        yield (
            "Memory is that of the program compiled for emulated CPU devices; the compiler for "
            f"{self.machine.accelerator.name}"
        )
        yield "lays out and orders work differently, which changes the workspace most."


_LIMITS = {
    "compute": "matrix products",
    "memory": "memory",
    "interconnect": "the interconnect",
}


def make_plan(
    work: Work,
    needs: Needs,
    machine: Machine,
    train_steps: int,
    *,
    advise: bool = True,
    progress: Any = lambda text: None,
) -> Plan:
    """Returns the plan, with what helps if the step doesn't fit, unless not asked to `advise`."""
    attempts = []
    if advise and not fits(needs, machine):
        attempts = find_fit(work, needs, machine, progress)
    return Plan(
        work=work,
        machine=machine,
        train_steps=train_steps,
        needs=needs,
        attempts=attempts,
        utilisation=Utilisation(),
    )


def _weights(config: T5Config) -> str:
    """Returns what the weights are held in."""
    if not config.quantization:
        return config.param_dtype
    return (
        f"{config.quantization} in blocks of {config.quantization_block} and {config.param_dtype}"
    )


def _row(name: str, value: str, remark: str = "") -> str:
    return f"  {name:{_NAME_WIDTH}}{value:>10}  {remark}"


def _size(number: int | float) -> str:
    """Returns a number of bytes in words, in decimal units."""
    return f"{_number(number)}B"


def _number(number: int | float) -> str:
    """Returns a large number with its power of ten, three digits or more of it."""
    for unit, power in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= power:
            return f"{number / power:.2f} {unit}"
    return f"{number:.0f} "


def _time(seconds: int | float) -> str:
    """Returns a time in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds / length:.2f} {unit}"
    return f"{1000 * seconds:.2f} ms"
