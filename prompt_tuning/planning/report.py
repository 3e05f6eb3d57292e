"""A plan for a training step, as text and as JSON."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jinja2

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.models.compute import Compute
from prompt_tuning.planning.compilers import missing
from prompt_tuning.planning.estimate import (
    ASSUMED_SHARE,
    USABLE,
    Attempt,
    Seconds,
    find_fit,
    fits,
    seconds_of,
)
from prompt_tuning.planning.machines import Machine
from prompt_tuning.planning.program import Needs, Work

PARTS = 10
"""How many of the program's dearest parts a plan has."""

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

    @property
    def fits(self) -> bool:
        """Whether the step fits in a device's memory."""
        return fits(self.needs, self.machine)

    @property
    def seconds(self) -> Seconds | None:
        """The estimated time per step; None if the compiler refused it."""
        return seconds_of(self.needs, self.work, self.machine)

    @property
    def hours(self) -> float | None:
        """The estimated total training time, without evaluations."""
        return self.seconds and self.seconds.step * self.train_steps / 3600

    @property
    def parts(self) -> list[tuple[str, str, float]]:
        """The dearest parts of the step by the accelerator's compiler: name, phase, seconds."""
        if self.needs.analysis is None or self.needs.compiler == "cpu":
            return []
        return self.needs.analysis.parts(self.machine.accelerator)[:PARTS]

    @property
    def fewest_flops(self) -> int:
        """The minimum FLOPs of a step, on all devices together."""
        work = self.work
        return step_flops(
            work.config,
            remat=work.compute.remat is True,
            batch=work.batch_size,
            prompt=work.prompt_length,
            source=work.input_length,
            target=work.target_length,
        ).total

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON values; sizes in bytes, times in seconds."""
        work, needs, seconds = self.work, self.needs, self.seconds
        sizes = ("weights", "all_weights", "state", "batch", "temporaries", "memory")
        counts = ("cycles", "flops", "moved")
        return {
            "model": work.config.name,
            "config": {**work.config.to_json(), **dataclasses.asdict(work.compute)},
            **{name: value for name, value in vars(work).items() if isinstance(value, int)},
            "prompt_length": work.prompt_length,
            "machine": self.machine.accelerator.name,
            "devices": self.machine.devices,
            "compiler": needs.compiler,
            "memory": {name: getattr(needs, name) for name in sizes},
            "fits": self.fits,
            "refusal": needs.refusal,
            "attempts": [attempt._asdict() for attempt in self.attempts],
            **{name: needs.analysis and getattr(needs.analysis, name) for name in counts},
            "fewest_flops": self.fewest_flops,
            "traffic": [traffic._asdict() for traffic in needs.traffic],
            "parts": self.parts,
            "seconds": seconds and {**seconds._asdict(), "step": seconds.step},
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
            accelerator=self.machine.accelerator,
            needs=self.needs,
            missing=missing(self.machine.accelerator),
            seconds=self.seconds,
            assumed=ASSUMED_SHARE,
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
    devices: Sequence[Any] | None = None,
    advise: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Returns the plan; with `advise`, also finds changes that make the step fit."""
    plan = Plan(work=work, machine=machine, train_steps=train_steps, needs=needs)
    if advise and not plan.fits:
        attempts = find_fit(work, needs, machine, devices, progress)
        return dataclasses.replace(plan, attempts=attempts)
    return plan


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
