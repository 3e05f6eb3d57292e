"""XLA's compilers for accelerators, which need no accelerator.

    accelerator = find_machine("v5e-16").accelerator
    devices = devices_of(accelerator, 16)  # in a process started with `environment(...)`
    analysis = compiled(jax.jit(f).lower(*shapes_with_shardings_over_those_devices))

What they compile is the program that would run there: its memory is exact, what doesn't fit is
refused, and Pallas kernels are compiled too. The TPU's compiler estimates the cycles of each part
of a program; the GPU's says nothing about time.
"""

import collections
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from prompt_tuning.errors import UserError
from prompt_tuning.parallel.accelerators import Accelerator
from prompt_tuning.planning.hlo import Kernel, Program

_GPUS_OF_A_HOST = 8

_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_block: 49152
  clock_rate_ghz: {ghz} memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory:.0f} {core}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 13 minor: 0 }}
device_description_str: "{name}"
"""
"""A GPU as XLA describes it (`GpuTargetConfigProto`)."""

_CORES = {
    "A100": "core_count: 108 fpus_per_core: 64 l2_cache_size: 41943040 "
    "shared_memory_per_core: 167936 shared_memory_per_block_optin: 166912 "
    "cuda_compute_capability { major: 8 }",
    "H": "core_count: 132 fpus_per_core: 128 l2_cache_size: 52428800 "
    "shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 "
    "cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }",
}
"""By the beginning of a name. NVIDIA's whitepapers on Ampere (2020) and Hopper (2022), as in
openxla/xla, `xla/backends/gpu/target_config/specs`."""


class DoesNotFit(UserError):
    """A compiler's refusal of a program that exceeds a device's memory.

    Attributes:
      needed: bytes, rounded as in the message.
      temporaries_only: whether they are those of the temporary arrays alone, without arguments.
    """

    def __init__(self, message: str):
        """Reads XLA's message."""
        line = message.split("\n", 1)[0].removeprefix("RESOURCE_EXHAUSTED: ").strip()
        super().__init__(f"The compiler refuses it: {line}")
        number, unit = re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])", line)[0]
        self.needed = int(float(number) * 1024 ** " KMGT".index(unit))
        self.temporaries_only = "temporaries" in line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a compiled program needs of each device.

    Attributes:
      arguments, outputs, temporaries: bytes; outputs that reuse an argument's memory aren't
        counted, and temporaries are the most at a time.
      cycles, flops, moved: of all kernels together (`hlo.Kernel`).
      program: its instructions.
    """

    arguments: int
    outputs: int
    temporaries: int
    cycles: int
    flops: int
    moved: int
    program: Program = dataclasses.field(repr=False)

    @property
    def memory(self) -> int:
        """All bytes."""
        return self.arguments + self.outputs + self.temporaries

    def parts(self, accelerator: Accelerator) -> list[tuple[str, str, float]]:
        """Returns the parts of the program, the dearest first: name, phase, estimated seconds.

        Names and phases are as in `hlo.Kernel`, seconds as in `seconds`.
        """
        found: dict[tuple[str, str], float] = collections.defaultdict(float)
        for kernel in self.program.kernels():
            found[kernel.name, kernel.phase] += self._seconds(kernel, accelerator)
        dearest = sorted(found.items(), key=lambda item: -item[1])
        return [(*source, part) for source, part in dearest]

    def seconds(
        self, accelerator: Accelerator, *, pallas_only: bool = False, at_peak: bool = False
    ) -> float:
        """Returns the estimated time of all kernels, without communication.

        TPU: the compiler's cycles; a Pallas kernel, whose cycles aren't known, counts with its
        FLOPs at the rate of its schedule, or at the peak if `at_peak`. GPU: the roofline of each
        kernel (Williams et al., 2009), the larger of its times at the peak FLOP/s and at the
        memory's bandwidth, which is the least.
        """
        kernels = (each for each in self.program.kernels() if each.pallas or not pallas_only)
        return math.fsum(self._seconds(kernel, accelerator, at_peak) for kernel in kernels)

    def _seconds(self, kernel: Kernel, accelerator: Accelerator, at_peak: bool = False) -> float:
        if self.cycles and not kernel.pallas:
            return kernel.times * kernel.cycles / accelerator.clock
        peak = accelerator.flops / (2 if kernel.float32 else 1)  # TF32 on GPUs
        if kernel.pallas and not at_peak:
            peak *= _SHARES[accelerator.name][kernel.phase == "backward"]
        least = max(kernel.flops / peak, kernel.moved / accelerator.memory_bandwidth)
        return kernel.times * least


_SHARES = {
    **dict.fromkeys(("v3", "v4"), (0.46 / 2, 0.66 / 2)),
    **dict.fromkeys(("v5e", "v5p"), (0.77 / 2, 0.93 / 2)),
    "v6e": (0.50 / 4, 0.70 / 4),
}
"""The shares of the peak FLOP/s that the compiler's schedules of the attention kernel, the only
Pallas kernel, reach for 612 queries and keys of 64 features, forward and backward
(`flash_attention.cost`). The schedule for v3 isn't known; v4's stands in."""


def missing(accelerator: Accelerator) -> str:
    """Returns a sentence on how to install an accelerator's compiler; empty if it is installed."""
    extra, package = ("cuda", "jax_cuda13_plugin") if accelerator.is_gpu else ("tpu", "libtpu")
    if importlib.util.find_spec(package):
        return ""
    return f"pip install 'prompt-tuning[{extra}]' brings it; it runs on any Linux machine."


def environment(accelerator: Accelerator | None, devices: int) -> dict[str, str]:
    """Returns the environment of a process that compiles; XLA reads it when JAX starts.

    The process also has as many emulated CPU devices.

    Args:
      accelerator: what to compile for; if None, the emulated devices.
      devices: their number.
    """
    flags = [os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}"]
    variables = {
        "JAX_PLATFORMS": "cpu",
        # A program from the cache doesn't report its memory.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    if accelerator is None:
        flags += [
            # The same program on every machine. It is never run, so it needn't be fast.
            "--xla_cpu_max_isa=AVX2",
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            # A CPU multiplies in float32. Don't convert all layers' weights before their loop.
            "--xla_disable_hlo_passes=while-loop-invariant-code-motion",
        ]
    elif accelerator.is_gpu:
        flags += ["--xla_gpu_autotune_level=0"]  # kernels can't be timed
    else:
        variables |= {
            "TPU_SKIP_MDS_QUERY": "1",  # ask nobody which TPU this machine has
            "TPU_ACCELERATOR_TYPE": "v5litepod-16",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_MIN_LOG_LEVEL": "3",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several compilers at a time
        }
    return {**variables, "XLA_FLAGS": " ".join(flags).strip()}


def devices_of(accelerator: Accelerator, count: int) -> list[Any]:
    """Returns JAX devices to compile for; the process must have been started with `environment`."""
    if accelerator.is_gpu:
        core = next(core for name, core in _CORES.items() if accelerator.name.startswith(name))
        config = _GPU.format(
            ghz=accelerator.clock / 1e9,
            bandwidth=accelerator.memory_bandwidth,
            memory=accelerator.memory,
            core=core,
            name=accelerator.kinds[0],
        )
        hosts = -(-count // _GPUS_OF_A_HOST)
        shape = {"topology": f"1x{hosts}x{-(-count // hosts)}", "target_config": config}
    else:
        shape = _slice(accelerator.name, count)
    platform = "cuda" if accelerator.is_gpu else "tpu"
    return topologies.get_topology_desc(platform=platform, **shape).devices[:count]


def _slice(name: str, count: int) -> dict[str, str]:
    """Returns the smallest TPU slice with a number of devices, as arguments of a topology.

    Slices double along one axis after another: v5e 2x2, 2x4, 4x4; v4 2x2x1, 2x2x2, 2x2x4.

    Raises:
      UserError: the number isn't a power of two.
    """
    if count & (count - 1):
        below = 2 ** (count.bit_length() - 1)
        raise UserError(
            f"The TPU compiler is asked for slices of a power of two of devices, and {count} isn't "
            f"one; plan for {below} or {2 * below}."
        )
    chips = count // 2 if name == "v3" else count
    shape = [2, 2, 1] if name in ("v4", "v5p") else [2, 2]
    while math.prod(shape) < chips:
        shortest = max(axis for axis, length in enumerate(shape) if length == min(shape))
        shape[shortest] *= 2
    found = {"topology_name": f"{name}:{'x'.join(map(str, shape))}"}
    # Both cores of a chip are one device, as on Google Cloud.
    return found | ({"chip_config_name": "megacore"} if name == "v4" else {})


def compiled(lowered: jax.stages.Lowered) -> Analysis:
    """Compiles a program and analyzes it.

    Args:
      lowered: `jax.jit(f).lower(...)` of shapes with shardings over devices of `devices_of`.

    Raises:
      DoesNotFit: it exceeds the devices' memory.
    """
    try:
        executable = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise DoesNotFit(str(error)) from error
        if "output tile sizes" in str(error):
            raise UserError(
                "XLA's GPU compiler fails on this step: without autotuning, which needs the GPU, "
                "it finds no tile for one of its products. Plan for a TPU."
            ) from error
        raise
    memory: Any = executable.memory_analysis()
    program = Program(executable.as_text() or "")
    totals = {
        quantity: sum(each.times * getattr(each, quantity) for each in program.kernels())
        for quantity in ("cycles", "flops", "moved")
    }
    return Analysis(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        **totals,
        program=program,
    )
