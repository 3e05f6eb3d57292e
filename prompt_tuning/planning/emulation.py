"""The environment of a process that emulates devices, to compile for them what is never run.

XLA reads it as it starts, so it is made for a process of its own. Nothing of JAX is imported here.
"""

import os


def environment(devices: int) -> dict[str, str]:
    """Returns the environment of a process that emulates so many devices."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # A program out of a cache doesn't tell what memory it needs.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
