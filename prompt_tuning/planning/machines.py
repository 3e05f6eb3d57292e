"""Machines by name: `v5e-16`, or `h200` and a number of devices.

The specifications of one device are in `prompt_tuning.parallel.accelerators`.
"""

import re
from dataclasses import dataclass

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.parallel.accelerators import ACCELERATORS, Accelerator

# Google Cloud's names of these count cores, of which JAX sees one or two per device; all other
# names count chips, one per device (docs.cloud.google.com/tpu/docs/tpu-system-architecture).
_CORES_A_DEVICE = {"v3": 1, "v4": 2, "v5p": 2}

_CLOUD_NAMES = {"v5litepod": "v5e", "v5lite": "v5e"}

_HOST_GPUS = 8
"""Number of GPUs connected by NVLink; the network between hosts has another speed."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A number of devices of one kind that work together."""

    accelerator: Accelerator
    devices: int

    def __str__(self) -> str:
        return f"{self.devices} x {self.accelerator.name}"

    @property
    def across_hosts(self) -> bool:
        """Whether the interconnect's specification applies only within each host."""
        return self.accelerator.is_gpu and self.devices > _HOST_GPUS


def find_machine(name: str, devices: int | None = None) -> Machine:
    """Returns a machine by name.

    Args:
      name: an accelerator, `h200`, or Google Cloud's name of a TPU slice, `v5e-16`;
        case-insensitive.
      devices: number of devices; if None, that of the name, or 1.

    Raises:
      UserError: the name is unknown; the number is given twice, or is impossible.
    """
    if devices is not None and devices < 1:
        raise UserError(f"--devices is {devices}; it must be at least 1.")
    known = {accelerator.name.lower(): accelerator for accelerator in ACCELERATORS}
    kind, in_name = name.lower(), None
    if found := re.fullmatch(r"(v\d\w*)-(\d+)", kind):
        kind, in_name = found[1], int(found[2])
    kind = _CLOUD_NAMES.get(kind, kind)
    if kind not in known:
        names = [accelerator.name for accelerator in ACCELERATORS]
        close = [known[other].name for other in known if other.startswith(kind)]
        meant = did_you_mean(kind, known) if not close else ""
        if close:
            meant = f" Did you mean {' or '.join(map(repr, close))}?"
        raise UserError(f"Unknown accelerator '{name}'; expected one of {', '.join(names)}.{meant}")
    if in_name is None:
        return Machine(accelerator=known[kind], devices=devices or 1)
    cores = _CORES_A_DEVICE.get(kind, 1)
    count, rest = divmod(in_name, cores)
    if rest or not count:
        raise UserError(
            f"There is no {name}: the number in a {kind} slice's name counts cores, {cores} a chip."
        )
    if devices not in (None, count):
        raise UserError(f"--devices is {devices}, but {name} has {count}; leave it out.")
    return Machine(accelerator=known[kind], devices=count)
