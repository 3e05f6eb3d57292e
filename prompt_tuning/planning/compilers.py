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
import functools
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from prompt_tuning.errors import UserError
from prompt_tuning.parallel.accelerators import Accelerator
from prompt_tuning.planning.kernels import Kernel, Program

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
"""By the beginning of a name. NVIDIA's whitepapers on Ampere (2020) and Hopper (2022); as in
openxla/xla, `xla/backends/gpu/target_config/specs`."""


class DoesNotFit(UserError):
    """The compiler's refusal of a program that exceeds a device's memory.

    Attributes:
      needed, available: bytes, rounded as the compiler says them; `needed` are the temporary
        arrays alone if `temporaries_only`.
    """

    def __init__(self, message: str):
        """Reads XLA's message."""
        first = message.split("\n", 1)[0].removeprefix("RESOURCE_EXHAUSTED: ").strip()
        super().__init__(f"The compiler refuses the program: {first}")
        sizes = [float(n) * 2 ** (10 * " KMGT".index(unit)) for n, unit in _SIZE.findall(first)]
        self.needed, self.available = (int(size) for size in (*sizes, 0, 0)[:2])
        self.temporaries_only = "temporaries" in first


_SIZE = re.compile(r"\b(\d+(?:\.\d+)?)([KMGT])(?:i?B)?\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """What a compiled program needs of each device. Sizes are in bytes.

    Attributes:
      arguments, outputs: of the program; outputs that reuse an argument's memory aren't counted.
      temporaries: the most that all other arrays take at a time.
      program: its instructions.
    """

    arguments: int
    outputs: int
    temporaries: int
    program: Program = dataclasses.field(repr=False)

    @property
    def memory(self) -> int:
        """The sum."""
        return self.arguments + self.outputs + self.temporaries

    @functools.cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels, without communication."""
        return tuple(self.program.kernels())

    @property
    def cycles(self) -> int:
        """The TPU compiler's estimate, without communication; 0 for other compilers."""
        return sum(kernel.times * kernel.cycles for kernel in self.kernels)

    @property
    def flops(self) -> int:
        """FLOPs of matrix products; 0 for TPUs."""
        return sum(kernel.times * kernel.flops for kernel in self.kernels)

    @property
    def moved(self) -> int:
        """Bytes that kernels read and write."""
        return sum(kernel.times * kernel.moved for kernel in self.kernels)

    def parts(self, accelerator: Accelerator) -> list[tuple[str, str, float]]:
        """Returns the parts of the program, the dearest first: name, phase, estimated seconds.

        Names are the source's, phases as in `Kernel`. For TPUs, the compiler's cycles; a Pallas
        kernel, which has none, counts like a GPU's. For GPUs, the roofline of each kernel
        (Williams et al., 2009), the larger of its times at the peak FLOP/s and at the memory's
        bandwidth: the least it can take.
        """
        estimated = self.cycles > 0
        seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
        for kernel in self.kernels:
            peak = accelerator.flops / (2 if kernel.float32 else 1)  # TF32 on GPUs
            least = max(kernel.flops / peak, kernel.moved / accelerator.memory_bandwidth)
            if estimated and not kernel.custom:
                least = kernel.cycles / accelerator.clock
            seconds[kernel.name, kernel.phase] += kernel.times * least
        dearest = sorted(seconds.items(), key=lambda item: -item[1])
        return [(name, phase, part) for (name, phase), part in dearest]

    def seconds(self, accelerator: Accelerator) -> float:
        """Returns the sum of `parts`, a time without communication."""
        return sum(part for _, _, part in self.parts(accelerator))


def is_gpu(accelerator: Accelerator) -> bool:
    """Whether an accelerator is a GPU; the others are TPUs."""
    return accelerator.kinds[0].startswith("NVIDIA")


def missing(accelerator: Accelerator) -> str:
    """Returns a sentence on how to install an accelerator's compiler; empty if it is installed."""
    names = ("jax_plugins.xla_cuda13", "jax_cuda13_plugin", "nvidia.cu13")
    if not is_gpu(accelerator):
        names = ("libtpu",)
    if all(map(_importable, names)):
        return ""
    extra = "cuda" if is_gpu(accelerator) else "tpu"
    return f"pip install 'prompt-tuning[{extra}]' brings it; it needs no {extra.upper()} device."


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False


def environment(accelerator: Accelerator | None, devices: int) -> dict[str, str]:
    """Returns the environment of a process that compiles; XLA reads it when JAX starts.

    Args:
      accelerator: what to compile for; if None, emulated CPU devices.
      devices: their number.
    """
    shared = {
        "JAX_PLATFORMS": "cpu",  # those with a compiler but no device aren't a default
        # A program from the cache doesn't report its memory.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    flags = os.environ.get("XLA_FLAGS", "")
    if accelerator is None:
        flags = f"{flags} --xla_force_host_platform_device_count={devices}"
    elif is_gpu(accelerator):  # kernels can't be timed to choose the fastest
        flags = f"{flags} --xla_gpu_autotune_level=0"
    else:
        shared |= {
            "TPU_SKIP_MDS_QUERY": "1",  # doesn't ask Google Cloud about this machine
            "TPU_ACCELERATOR_TYPE": "v5litepod-16",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_MIN_LOG_LEVEL": "3",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several compilers at a time
        }
    return {**shared, "XLA_FLAGS": flags.strip()}


def devices_of(accelerator: Accelerator, count: int) -> list[Any]:
    """Returns devices to compile for, of a topology that has them.

    The process must have been started with `environment`.
    """
    if is_gpu(accelerator):
        core = next(core for name, core in _CORES.items() if accelerator.name.startswith(name))
        config = _GPU.format(
            ghz=accelerator.clock / 1e9,
            bandwidth=accelerator.memory_bandwidth,
            memory=accelerator.memory,
            core=core,
            name=accelerator.kinds[0],
        )
        hosts = -(-count // _GPUS_OF_A_HOST)
        shape = f"1x{hosts}x{-(-count // hosts)}"
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=config, topology=shape
        )
    else:
        topology = topologies.get_topology_desc(platform="tpu", **_slice(accelerator.name, count))
    return topology.devices[:count]


def _slice(name: str, count: int) -> dict[str, Any]:
    """Returns the smallest TPU slice with a number of devices, as arguments of a topology.

    Slices double along one axis after another: v5e 2x2, 2x4, 4x4; v4 2x2x1, 2x2x2, 2x2x4.
    """
    chips = count // 2 if name == "v3" else count
    shape = [2, 2, 1] if name in ("v4", "v5p") else [2, 2]
    while math.prod(shape) < chips:
        smallest = max(axis for axis, length in enumerate(shape) if length == min(shape))
        shape[smallest] *= 2
    return {
        "topology_name": f"{name}:{'x'.join(map(str, shape))}",
        # Both cores of a chip as one device, as on Google Cloud.
        **({"chip_config_name": "megacore"} if name == "v4" else {}),
    }


def compiled(lowered: jax.stages.Lowered, options: Any = None) -> Analysis:
    """Compiles a program and analyzes it.

    Args:
      lowered: `jax.jit(f).lower(...)` of shapes with shardings over devices of `devices_of`.
      options: the compiler's.

    Raises:
      DoesNotFit: it exceeds the devices' memory.
    """
    try:
        program = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise DoesNotFit(str(error)) from error
        raise
    memory: Any = program.memory_analysis()
    return Analysis(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        program=Program(program.as_text() or ""),
    )
