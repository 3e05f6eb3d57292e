"""A plan for a training step, as text and as JSON."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jinja2

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.models.compute import Compute
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

# JAX's default for XLA_PYTHON_CLIENT_MEM_FRACTION, the share of a GPU's memory that it uses.
_GPU_SHARE = 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The requirements and estimated time of a training step on a machine.

    Attributes:
      train_steps: total number of steps.
      attempts: changes that were tried to make the step fit, if it doesn't.
    """

    work: Work
    machine: Machine
    train_steps: int
    needs: Needs
    attempts: Sequence[Attempt] = ()
    utilisation: Utilisation

    @property
    def fits(self) -> bool:
        """Whether the step fits in a device's memory."""
        return fits(self.needs, self.machine)

    @property
    def seconds(self) -> Seconds:
        """The estimated time per step."""
        return seconds_of(self.needs, self.work, self.machine, self.utilisation)

    @property
    def hours(self) -> float:
        """The estimated total training time, without evaluations."""
        return self.seconds.step * self.train_steps / 3600

    @property
    def fewest_flops(self) -> int:
        """The minimum FLOPs of a step, on all devices together."""
        work = self.work
        return step_flops(
            work.config,
            remat=work.compute.remat,
            batch=work.batch_size,
            prompt=work.prompt_length,
            source=work.input_length,
            target=work.target_length,
        ).total

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON values; sizes in bytes, times in seconds."""
        work, needs = self.work, self.needs
        return {
            "model": work.config.name,
            "config": {**work.config.to_json(), **dataclasses.asdict(work.compute)},
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
        """Returns the plan as text for a terminal."""
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters |= {
            "size": lambda count: f"{_number(count)}B",
            "number": _number,
            "time": _time,
            "percent": "{:.0%}".format,
        }
        template = Path(__file__).parent / "templates" / "plan.txt"
        return environment.from_string(template.read_text(encoding="utf-8")).render(
            plan=self,
            work=self.work,
            config=self.work.config,
            compute=self.work.compute,
            weights=_weights(self.work.compute),
            machine=self.machine,
            room=self.machine.accelerator.memory,
            needs=self.needs,
            seconds=self.seconds,
            used=self.utilisation,
            usable=USABLE,
            gpu_share=_GPU_SHARE,
            row=lambda name, value, remark="": f"  {name:20}{value:>10}  {remark}".rstrip(),
        )


def make_plan(
    work: Work,
    needs: Needs,
    machine: Machine,
    train_steps: int,
    *,
    advise: bool = True,
    progress: Any = lambda text: None,
) -> Plan:
    """Returns the plan; with `advise`, also finds changes that make the step fit."""
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


def _weights(compute: Compute) -> str:
    """Returns the storage format of the weights."""
    if not compute.quantization:
        return compute.param_dtype
    blocks = f"{compute.quantization} in blocks of {compute.quantization_block}"
    return f"{blocks} and {compute.param_dtype}"


def _number(number: int | float) -> str:
    """Formats a large number with a power of ten and at least three digits."""
    for unit, power in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= power:
            return f"{number / power:.2f} {unit}"
    return f"{number:.0f} "


def _time(seconds: int | float) -> str:
    """Formats a time with a suitable unit."""
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds / length:.2f} {unit}"
    return f"{1000 * seconds:.2f} ms"
