"""What the machine multiplies matrices fastest in."""

from pathlib import Path

import jax

CPU_FLAGS = ("amx_bf16", "avx512_bf16")
"""Flags of /proc/cpuinfo, either of which says that bfloat16 products are twice as fast."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns the CPU's flags as Linux lists them; none are known elsewhere."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    listed = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(listed.partition(":")[2].split())


def fastest_matmul_dtype(platform: str | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns what inputs of matrix products should be rounded to, for a config's `matmul_dtype`.

    bfloat16 on TPUs, on GPUs and on CPUs with instructions for it, where a product of bfloat16
    inputs summed in float32 runs at twice float32's rate; float32 on other CPUs, which would
    convert back and forth.

    Args:
      platform: "cpu", "gpu", "tpu"; None: the one JAX computes on.
      cpuinfo: where Linux lists the CPU's flags.
    """
    if (platform or jax.default_backend()) != "cpu":
        return "bfloat16"
    return "bfloat16" if cpu_flags(cpuinfo) & set(CPU_FLAGS) else "float32"
