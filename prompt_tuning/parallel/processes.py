"""One run on many hosts: one process per host; all start and end together.

    with joined(ProcessOptions(...), report):  # before any computation
        mesh = make_mesh()                     # over all processes' devices
        ...                                    # the same program on each

On Cloud TPU, SLURM, and Open MPI, JAX detects the number of processes and its own index; processes
started by hand get an address, a number, and an index. Every process runs the same program on the
same data; only the first one writes files.

If a process is lost, the others end too: at once on CPUs, whose connections break, and otherwise by
JAX's heartbeat. The same command, on any number of hosts, resumes from the last checkpoint.
"""

import contextlib
import importlib.util
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.errors import UserError
from prompt_tuning.parallel.mesh import replicated
from prompt_tuning.settings import Free

T = TypeVar("T")

BUG, LOST = 1, 3
"""Exit status of a process that ends the run by a bug, or because another process was lost."""

# How XLA's runtime reports broken connections and lost processes; JAX raises several types.
_LOST_STATUS = re.compile(r"(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")

_MESSAGE_BYTES = 4096
_SECONDS_THE_FIRST_STAYS = 2.0


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Options for joining the processes of a run; JAX detects fields that are None.

    Attributes:
      coordinator: host:port of the first process, which the others connect to.
      count: the number of processes.
      index: the index of this process, from 0.
      heartbeat_seconds: a process that is silent for this long counts as lost.
    """

    coordinator: Free[str | None] = None
    count: Free[int | None] = None
    index: Free[int | None] = None
    heartbeat_seconds: Free[int] = 100

    def __post_init__(self) -> None:
        given = {
            "COORDINATOR_ADDRESS": self.coordinator,
            "NUM_PROCESSES": self.count,
            "PROCESS_ID": self.index,
        }
        missing = [name for name, value in given.items() if value is None]
        if 0 < len(missing) < 3:
            raise UserError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set; a run of "
                "several processes started by hand needs all of COORDINATOR_ADDRESS (host:port of "
                "process 0), NUM_PROCESSES and PROCESS_ID."
            )
        if self.coordinator is None or self.count is None or self.index is None:
            return
        if not re.fullmatch(r".*:\d+", self.coordinator):
            raise UserError(
                f"COORDINATOR_ADDRESS is '{self.coordinator}'; expected host:port, such as "
                "10.0.0.1:8476."
            )
        if not 0 <= self.index < self.count:
            raise UserError(
                f"PROCESS_ID is {self.index} and NUM_PROCESSES {self.count}; expected an index "
                f"from 0 to {max(self.count, 1) - 1}."
            )


def from_environment(environment: Mapping[str, str]) -> ProcessOptions | None:
    """Returns options for the run that the environment describes, or None for a single process."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (environment.get(name, "") for name in names)
    if address and count.isdigit() and index.isdigit():
        return ProcessOptions(coordinator=address, count=int(count), index=int(index))
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    launched = (
        # Under `srun`; a shell from `salloc` is one process, whatever its allocation.
        _number(environment, "SLURM_NTASKS") > 1 and "SLURM_STEP_NODELIST" in environment,
        _number(environment, "OMPI_COMM_WORLD_SIZE") > 1,
        "," in hosts,
        "MEGASCALE_COORDINATOR_ADDRESS" in environment,
    )
    return ProcessOptions() if any(launched) else None


@contextlib.contextmanager
def joined(
    options: ProcessOptions | None, report: Callable[[BaseException], int | None]
) -> Iterator[None]:
    """Joins the other processes of the run, and leaves with them.

    An error ends this process, and thereby the run, at once.

    Args:
      options: how to find the others; None for a single process or a host of a TPU slice.
      report: prints an error and returns the exit status, or None for a bug.

    Raises:
      UserError: the others can't be found.
    """
    if options is None and not (_on_a_tpu_host() and _joined_a_slice()):
        yield
        return
    # stdout is for results; libraries' output, such as Gloo's, goes to stderr.
    sys.stdout.flush()
    results = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(results, "w", encoding="utf-8")
    if options is not None:
        _initialize(options)
    try:
        # While all processes are here: on CPUs, Gloo waits at most 30 seconds for a process.
        multihost_utils.sync_global_devices("joined")
        yield
    except SystemExit:  # all processes were stopped
        jax.distributed.shutdown()
        raise
    except BaseException as error:
        if isinstance(error, RuntimeError | ValueError) and _LOST_STATUS.match(str(error)):
            print(
                f"prompt-tuning: process {jax.process_index()} of {jax.process_count()} lost "
                f"another one, or its devices failed ({' '.join(str(error).split())[:200]}). The "
                "same command resumes from the last checkpoint.",
                file=sys.stderr,
            )
            status = LOST
        elif (status := report(error)) is None:
            traceback.print_exception(error)
            status = BUG
        sys.stdout.flush()
        sys.stderr.flush()
        if jax.process_index() == 0:
            # It hosts the coordination service, which the others need to report their error.
            time.sleep(_SECONDS_THE_FIRST_STAYS)
        # Not by an exception: at exit, Python would wait for processes that are lost.
        os._exit(status)
    jax.distributed.shutdown()


def is_first() -> bool:
    """Returns whether this process writes files; always true for a single process."""
    return jax.process_index() == 0


def first_then_all(action: Callable[[], T]) -> T:
    """Runs `action` on the first process, then on the others; returns each one's result.

    For actions with side effects, such as writing a file to a shared cache.

    Raises:
      UserError: the first process raised it; all processes raise the same.
    """
    if jax.process_count() == 1:
        return action()
    if not is_first():
        if message := _broadcast(""):
            raise UserError(message)
        return action()
    try:
        result = action()
    except UserError as error:
        _broadcast(str(error))
        raise
    _broadcast("")
    return result


def vote_over(mesh: Mesh) -> Callable[[int], jax.Array] | None:
    """Returns a function that all-reduces (max) one integer per process; None for one process."""
    if not mesh.is_multi_process:
        return None
    a_row_a_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    greatest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def vote(number: int) -> jax.Array:
        mine = np.full(1, number, np.int32)
        votes = jax.make_array_from_callback((mesh.size,), a_row_a_device, lambda index: mine)
        return greatest(votes)

    return vote


def _initialize(options: ProcessOptions) -> None:
    # The training loop handles SIGTERM itself, by a vote of the processes.
    jax.config.update("jax_enable_preemption_service", False)
    by_hand = options.coordinator is not None
    try:
        jax.distributed.initialize(
            options.coordinator,
            options.count,
            options.index,
            # Started by hand, each process uses all devices it sees, even under a launcher.
            cluster_detection_method="deactivate" if by_hand else None,
            heartbeat_timeout_seconds=options.heartbeat_seconds,
            shutdown_timeout_seconds=options.heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        where = f" at {options.coordinator}" if by_hand else ""
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"The processes of the run can't find each other{where}: {reason}. Check "
            "COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID, and that the port is open."
        ) from error


def _on_a_tpu_host() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    return "tpu" in platforms and importlib.util.find_spec("libtpu") is not None


def _joined_a_slice() -> bool:
    """Joins the slice that this TPU host is part of, if any."""
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError):
        return False
    return True


def _broadcast(message: str) -> str:
    """Sends the first process's message to all of them."""
    text = message.encode()[:_MESSAGE_BYTES]
    padded = np.frombuffer(text.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    sent: Any = multihost_utils.broadcast_one_to_all(padded)
    return np.asarray(sent).astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="replace")


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else 0
