"""What accelerators can do at most, by their makers' data sheets.

Figures are those of one JAX device, which is a chip, but on TPU v3 one of a chip's two cores.
They are limits, not promises: what a program reaches of them is measured (`mfu` in
`metrics.jsonl`), and what it could reach is `prompt-tuning plan`'s estimate.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One kind of device.

    name: what users call it.
    kinds: what `jax.Device.device_kind` calls it.
    flops: bfloat16 matrix products with float32 sums, dense, in operations a second; a multiply
        and an add are two.
    memory: bytes.
    memory_bandwidth: bytes a second.
    interconnect_bandwidth: bytes a second that it can send to its neighbours over all of its
        links together, and receive at the same time: ICI, NVLink.
    """

    name: str
    kinds: tuple[str, ...]
    flops: float
    memory: float
    memory_bandwidth: float
    interconnect_bandwidth: float


_GB, _GIB = 1e9, 2.0**30

ACCELERATORS = (
    # TPUs: docs.cloud.google.com/tpu/docs/{v3,v4,v5e,v5p,v6e}, "System architecture", read in
    # 2026. Interconnect: half of the bidirectional figure, which is Gbps / 8 in the older tables;
    # for v3, which has none, the pod's all-reduce bandwidth shared by its chips, as it comes out
    # for the others too. Kinds: jax/_src/mesh_utils.py and jax/_src/pallas/mosaic/tpu_info.py.
    Accelerator(
        name="v3",
        kinds=("TPU v3",),
        flops=123e12 / 2,
        memory=16 * _GIB,
        memory_bandwidth=900 * _GB / 2,
        interconnect_bandwidth=340e12 / 1024 / 2,
    ),
    Accelerator(
        name="v4",
        kinds=("TPU v4",),
        flops=275e12,
        memory=32 * _GIB,
        memory_bandwidth=1228 * _GB,
        interconnect_bandwidth=300 * _GB,
    ),
    Accelerator(
        name="v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        flops=197e12,
        memory=16 * _GB,
        memory_bandwidth=819 * _GB,
        interconnect_bandwidth=200 * _GB,
    ),
    Accelerator(
        name="v5p",
        kinds=("TPU v5", "TPU v5p"),
        flops=459e12,
        memory=95 * _GB,
        memory_bandwidth=2765 * _GB,
        interconnect_bandwidth=600 * _GB,
    ),
    Accelerator(
        name="v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        flops=918e12,
        memory=32 * _GB,
        memory_bandwidth=1600 * _GB,
        interconnect_bandwidth=400 * _GB,
    ),
    # GPUs: NVIDIA's data sheets of the A100, H100 and H200 Tensor Core GPUs, SXM, without
    # sparsity. Interconnect: NVLink, whose total counts both directions.
    Accelerator(
        name="A100-40GB",
        kinds=("NVIDIA A100-SXM4-40GB",),
        flops=312e12,
        memory=40 * _GB,
        memory_bandwidth=1555 * _GB,
        interconnect_bandwidth=300 * _GB,
    ),
    Accelerator(
        name="A100-80GB",
        kinds=("NVIDIA A100-SXM4-80GB",),
        flops=312e12,
        memory=80 * _GB,
        memory_bandwidth=2039 * _GB,
        interconnect_bandwidth=300 * _GB,
    ),
    Accelerator(
        name="H100",
        kinds=("NVIDIA H100 80GB HBM3",),
        flops=989e12,
        memory=80 * _GB,
        memory_bandwidth=3350 * _GB,
        interconnect_bandwidth=450 * _GB,
    ),
    Accelerator(
        name="H200",
        kinds=("NVIDIA H200",),
        flops=989e12,
        memory=141 * _GB,
        memory_bandwidth=4800 * _GB,
        interconnect_bandwidth=450 * _GB,
    ),
)


def accelerator_of(device_kind: str) -> Accelerator | None:
    """Returns the entry of what JAX calls a device, or None where it isn't in the table."""
    return next((found for found in ACCELERATORS if device_kind in found.kinds), None)
