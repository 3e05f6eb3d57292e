"""The environment of a process that emulates devices, to compile for them what is never run.

XLA reads it as it starts, so it is made for a process of its own. Nothing of JAX is imported here.
"""

import os

_XLA_FLAGS = (
    # The same program on every machine, scheduled to need little memory as on an accelerator.
    "--xla_cpu_max_isa=AVX2",
    "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    # It is never run: machine code needn't be good.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)


def environment(devices: int) -> dict[str, str]:
    """Returns the environment of a process that emulates so many devices."""
    flags = [f"--xla_force_host_platform_device_count={devices}", *_XLA_FLAGS]
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags),
        # A program out of a cache doesn't tell what memory it needs.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
