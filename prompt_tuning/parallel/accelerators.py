"""Peak performance of accelerators, from the manufacturers' data sheets.

Values are for one JAX device, which is a chip, or on TPU v3 one of a chip's two cores. The share of
the peak that a program reaches is measured (`mfu` in `metrics.jsonl`); `prompt-tuning plan`
estimates the share it could reach.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Accelerator:
    """One kind of device.

    Attributes:
      name: its name for users.
      kinds: its names in `jax.Device.device_kind`.
      flops: operations per second in dense bfloat16 matrix products with float32 sums; a multiply
        and an add count as two.
      memory: in bytes.
      memory_bandwidth: in bytes per second.
      interconnect_bandwidth: bytes per second that it can send to its neighbors over all of its
        links together, and receive at the same time (ICI, NVLink).
      clock: of its cores, in Hz; a GPU's boost clock.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: float
    memory_bandwidth: float
    interconnect_bandwidth: float
    clock: float

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU; all others are TPUs."""
        return self.kinds[0].startswith("NVIDIA")


_GIB = 2.0**30

# TPUs: docs.cloud.google.com/tpu/docs/{v3,v4,v5e,v5p,v6e}, "System architecture", read in 2026;
# their GB of memory are GiB, as the limits of XLA's compilers show.
# Interconnect: half of the bidirectional figure, which is Gbps / 8 in the older tables; for v3,
# which has none, the pod's all-reduce bandwidth divided by its chips, which agrees with the figures
# of the others. Kinds: jax/_src/mesh_utils.py and jax/_src/pallas/mosaic/tpu_info.py.
# GPUs: NVIDIA's data sheets of the A100, H100 and H200 Tensor Core GPUs, SXM, without sparsity.
# Interconnect: NVLink, whose total counts both directions.
# Clocks: of v3 and v4, Jouppi et al. (2023); of later TPUs, peak FLOPs divided by those of
# a cycle, 2 for each cell of the chip's matrix units (v5e 4 x 128^2, v5p 8 x 128^2, v6e 4 x 256^2).
ACCELERATORS = (
    Accelerator("v3", ("TPU v3",), 123e12 / 2, 16 * _GIB, 900e9 / 2, 340e12 / 1024 / 2, 0.94e9),
    Accelerator("v4", ("TPU v4",), 275e12, 32 * _GIB, 1228e9, 300e9, 1.05e9),
    Accelerator("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16 * _GIB, 819e9, 200e9, 1.5e9),
    Accelerator("v5p", ("TPU v5", "TPU v5p"), 459e12, 95 * _GIB, 2765e9, 600e9, 1.75e9),
    Accelerator("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32 * _GIB, 1600e9, 400e9, 1.75e9),
    Accelerator("A100-40GB", ("NVIDIA A100-SXM4-40GB",), 312e12, 40e9, 1555e9, 300e9, 1.41e9),
    Accelerator("A100-80GB", ("NVIDIA A100-SXM4-80GB",), 312e12, 80e9, 2039e9, 300e9, 1.41e9),
    Accelerator("H100", ("NVIDIA H100 80GB HBM3",), 989e12, 80e9, 3350e9, 450e9, 1.98e9),
    Accelerator("H200", ("NVIDIA H200",), 989e12, 141e9, 4800e9, 450e9, 1.98e9),
)


def accelerator_of(device_kind: str) -> Accelerator | None:
    """Returns the entry of a JAX device kind, or None if the table doesn't contain it."""
    return next((found for found in ACCELERATORS if device_kind in found.kinds), None)


def memory_of(device: Any) -> int | float | None:
    """Returns the bytes of a device's memory that JAX may use; None if unknown, as of CPUs."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    known = accelerator_of(device.device_kind)
    return limit or (known and known.memory)
