"""The dtype in which the machine multiplies matrices fastest."""

from pathlib import Path

import jax

CPU_FLAGS = ("amx_bf16", "avx512_bf16")
"""Flags of /proc/cpuinfo; with either, bfloat16 products are twice as fast."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns the CPU's flags as listed by Linux; empty on other systems."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    listed = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(listed.partition(":")[2].split())


def fastest_matmul_dtype(platform: str | None = None, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the fastest dtype for inputs of matrix products, which `matmul_dtype="auto"` uses.

    bfloat16 on TPUs, GPUs and CPUs with instructions for it, which multiply it (with float32 sums)
    at twice float32's rate; float32 on other CPUs, which would convert back and forth.

    Args:
      platform: "cpu", "gpu" or "tpu"; JAX's default backend if None.
      cpuinfo: the file in which Linux lists the CPU's flags.
    """
    if (platform or jax.default_backend()) != "cpu":
        return "bfloat16"
    return "bfloat16" if cpu_flags(cpuinfo) & set(CPU_FLAGS) else "float32"
