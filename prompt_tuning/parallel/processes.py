"""One run on many hosts: a process on each, started together, ended together.

    with joined(ProcessOptions(...)):      # before anything is computed
        mesh = make_mesh()                 # of all processes' devices
        ...                                # the same program on each

On Cloud TPU, under SLURM and Open MPI JAX finds out by itself how many processes there are and
which of them this is; by hand, an address, a number and an index are given. Every process runs
the same program on the same data; only what is written is left to the first.

A process that is lost takes the others with it: those on a CPU notice at once, and those whose
collectives hang, by JAX's heartbeat. Each says so in a line of its own. The same command, on as
many hosts as there are then, goes on from the last checkpoint.
"""

import contextlib
import importlib.util
import os
import subprocess
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

from prompt_tuning.errors import UserError, out_of_memory
from prompt_tuning.parallel.mesh import replicated
from prompt_tuning.settings import Free

T = TypeVar("T")

USER_ERROR, BUG, LOST = 2, 1, 3
"""Exit status of a process that ends the run: the user's mistake, ours, or another process lost."""

_MESSAGE_BYTES = 4096
_SECONDS_THE_FIRST_STAYS = 2.0

# What jaxlib says where another process, or the one that all report to, is gone.
_LOST_SIGNS = (
    "gloo",
    "connection reset",
    "connection closed",
    "coordination service",
    "unavailable:",
    "heartbeat",
    "nccl",
)


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """How the processes of a run find each other; what is None is found out.

    Attributes:
      coordinator: host:port of the first process, at which the others report.
      count: how many there are.
      index: which of them this is, from 0.
      heartbeat_seconds: a process that is silent for so long is lost.
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
        if not self.coordinator.rpartition(":")[2].isdigit() or ":" not in self.coordinator:
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
    """Returns how to join the run that the environment tells of, or None if it tells of none.

    None too where a launcher has started a single process: it needs nobody.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (environment.get(name, "") for name in names)
    if address and count.isdigit() and index.isdigit():
        return ProcessOptions(coordinator=address, count=int(count), index=int(index))
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    launched = (
        # Under `srun`; in a shell that `salloc` gives, there is one process whatever is allotted.
        _number(environment, "SLURM_NTASKS") > 1 and "SLURM_STEP_NODELIST" in environment,
        _number(environment, "OMPI_COMM_WORLD_SIZE") > 1,
        "," in hosts,
        "MEGASCALE_COORDINATOR_ADDRESS" in environment,
    )
    return ProcessOptions() if any(launched) else None


@contextlib.contextmanager
def joined(options: ProcessOptions | None) -> Iterator[None]:
    """Joins the other processes of the run, and leaves with them; None: there are no others.

    An error ends this process, and so the run, at once: a line on stderr, and a status from above.

    Raises:
      UserError: the others can't be found.
    """
    if options is None and not (_on_a_tpu_host() and _joined_a_pod()):
        yield
        return
    _keep_stdout_for_results()
    if options is not None:
        _initialize(options)
    name = f"process {jax.process_index()} of {jax.process_count()}"
    with _last_words(
        f"prompt-tuning: {name} was killed, or had to end because another one was lost. The same "
        "command resumes from the last checkpoint."
    ) as disarm:
        try:
            # While all are here: Gloo, on CPUs, waits for nobody longer than half a minute.
            multihost_utils.sync_global_devices("joined")
            yield
        except SystemExit:  # asked to stop, as all of them were
            disarm()
            jax.distributed.shutdown()
            raise
        except BaseException as error:
            status = _tell(error, name)
            disarm()
            if jax.process_index() == 0:
                # The others report to this one: were it gone, they couldn't say what they have to.
                time.sleep(_SECONDS_THE_FIRST_STAYS)
            sys.stdout.flush()
            # Not by an exception: on its way out Python would wait for processes that are gone.
            os._exit(status)
        disarm()
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process is the one that writes; true of a single one."""
    return jax.process_index() == 0


def first_then_all(action: Callable[[], T]) -> T:
    """Has the first process do something before the others do it; returns what each got.

    For what the first leaves behind for all, such as a file in a cache that they share.

    Raises:
      UserError: of the first process, on every one of them.
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
    """Returns how the processes of a mesh vote: the greatest of their numbers, on its way to each.

    None for a single process. It is one more number among those that cross hosts in a step.
    """
    if not mesh.is_multi_process:
        return None
    a_row_a_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    greatest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def vote(number: int) -> jax.Array:
        mine = np.full(1, number, np.int32)
        return greatest(
            jax.make_array_from_callback((mesh.size,), a_row_a_device, lambda index: mine)
        )

    return vote


def _initialize(options: ProcessOptions) -> None:
    # The loop takes SIGTERM itself, and has the processes vote.
    jax.config.update("jax_enable_preemption_service", False)
    by_hand = options.coordinator is not None
    try:
        jax.distributed.initialize(
            options.coordinator,
            options.count,
            options.index,
            # By hand every process has the devices it sees, even under a launcher.
            cluster_detection_method="deactivate" if by_hand else None,
            heartbeat_timeout_seconds=options.heartbeat_seconds,
            shutdown_timeout_seconds=options.heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        where = f" at {options.coordinator}" if by_hand else ""
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"The processes of the run can't find each other{where}: {told[0].rstrip('.')}. Check "
            "COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID, and that the port is open."
        ) from error


def _on_a_tpu_host() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS", "tpu")
    return "tpu" in platforms and importlib.util.find_spec("libtpu") is not None


def _joined_a_pod() -> bool:
    """Joins the slice that this TPU host is part of; on other hosts with libtpu, there is none."""
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError):
        return False
    return True


def _tell(error: BaseException, name: str) -> int:
    """Says what ended this process in one line, except for a bug; returns the exit status."""
    line = " ".join(str(error).split())
    if isinstance(error, UserError):
        told, status = line.partition(" In call to configurable ")[0], USER_ERROR
    elif isinstance(error, KeyboardInterrupt):
        told, status = "Interrupted.", 130
    elif (found := out_of_memory(error)) is not None:
        told, status = found, USER_ERROR
    elif any(sign in line.lower() for sign in _LOST_SIGNS):
        told, status = (
            (
                f"{name} lost another one, which was killed or can't be reached. The same command "
                f"resumes from the last checkpoint. ({line[:120]})"
            ),
            LOST,
        )
    else:
        traceback.print_exception(error)
        told, status = f"{name} ends the run by the error above.", BUG
    print(f"prompt-tuning: {told}", file=sys.stderr, flush=True)
    return status


@contextlib.contextmanager
def _last_words(text: str) -> Iterator[Callable[[], None]]:
    """Has `text` printed on stderr if this process dies without a word of its own.

    JAX's heartbeat ends a process from C++, with a page of addresses and no chance for Python.
    So a shell waits at the other end of a pipe. Yields a function that sends it home.
    """
    script = "trap '' TERM INT HUP; read -r word || printf '%s\\n' \"$1\" >&2"
    shell = subprocess.Popen(["/bin/sh", "-c", script, "sh", text], stdin=subprocess.PIPE)
    assert shell.stdin is not None
    pipe = shell.stdin

    def disarm() -> None:
        if not pipe.closed:
            with contextlib.suppress(OSError):
                pipe.write(b"well\n")
                pipe.close()
            shell.wait()

    try:
        yield disarm
    finally:
        disarm()


def _keep_stdout_for_results() -> None:
    """Leaves stdout to Python: what libraries print there, as Gloo does, goes to stderr."""
    sys.stdout.flush()
    results = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(results, "w", encoding="utf-8")


def _broadcast(message: str) -> str:
    """Gives the first process's message to all of them."""
    text = message.encode()[:_MESSAGE_BYTES]
    padded = np.frombuffer(text.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    told: Any = multihost_utils.broadcast_one_to_all(padded)
    return np.asarray(told).astype(np.uint8).tobytes().rstrip(b"\0").decode(errors="replace")


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else 0
