"""Shared code of the benchmarks against PEFT: interleaved processes, and the machine.

A contender is a process with a model. It reads requests as lines of JSON from its standard input
and answers each with a line of JSON: ours is `worker_ours.py`, Hugging Face PEFT's is
`worker_peft.py`. They take turns (A B A B), so that a machine that slows down affects all; while
one works, the others sleep. Separate processes make their peak memory comparable.

The peer runs in its own virtual environment, which is created once in the user's cache folder from
the pins below; `--peer_python` names an interpreter that already has them.
"""

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.files import default_cache_dir
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.hardware import cpu_flags

HERE = Path(__file__).parent
PEER_PINS = ("torch==2.13.0", "transformers==5.23.0", "peft==0.21.2")
FLAGS_OF_INTEREST = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
OUR_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")

QUICK = T5Config(
    name="quick",
    vocab_size=512,
    embed_dim=128,
    num_heads=4,
    head_dim=32,
    mlp_dim=256,
    num_encoder_layers=2,
    num_decoder_layers=2,
)
"""A tiny model, to try a benchmark."""

Answer = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """A program with its settings.

    Attributes:
      name: the name in tables and results.
      command: the command of the process.
      setup: its first request: the task, the model and its lengths.
    """

    name: str
    command: Sequence[str]
    setup: Mapping[str, Any]


def ours(
    name: str, config: T5Config, compute: Compute = Compute(unroll=0), **setup: Any
) -> Contender:
    """Returns a process of this package's, in this interpreter."""
    command = [sys.executable, str(HERE / "worker_ours.py")]
    setup = {**setup, "config": config.to_json(), "compute": dataclasses.asdict(compute)}
    return Contender(name=name, command=command, setup=setup)


def peft(name: str, config: T5Config, python: str, *, dtype: str, **setup: Any) -> Contender:
    """Returns Hugging Face PEFT's contender, in the interpreter `python`."""
    command = [python, str(HERE / "worker_peft.py")]
    setup = {**setup, "dtype": dtype, "config": config.to_json()}
    return Contender(name=name, command=command, setup=setup)


def peer_python(given: str | None) -> str:
    """Returns an interpreter with PEFT; creates its environment if needed."""
    if given:
        return given
    key = hashlib.sha256(" ".join((*PEER_PINS, sys.version)).encode()).hexdigest()[:12]
    folder = default_cache_dir() / "benchmarks" / f"peft-{key}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "installed"
    if not done.exists():
        print(f"Installing {', '.join(PEER_PINS)} into {folder} (some minutes, once).", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PEER_PINS]
        subprocess.run(install, check=True)
        done.touch()
    return str(python)


class _Process:
    """A running contender."""

    def __init__(self, contender: Contender):
        self.name = contender.name
        self._process = subprocess.Popen(
            list(contender.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The peer must look for nothing on the network: its model is made up.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self._told = self.ask(dict(contender.setup))
        self.versions: dict[str, str] = self._told["versions"]

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """Sends a request and waits for the answer."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self._process.wait()}; see above.")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def running(contenders: Sequence[Contender]) -> Iterator[dict[str, _Process]]:
    """Starts the contenders one after another, and stops them."""
    processes: dict[str, _Process] = {}
    try:
        for contender in contenders:
            print(f"Starting {contender.name}.", file=sys.stderr, flush=True)
            processes[contender.name] = _Process(contender)
        yield processes
    finally:
        for process in processes.values():
            process.close()


def take_turns(
    contenders: Sequence[Contender],
    work: Mapping[str, Sequence[Any]],
    *,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """Runs each contender's pieces of work once untimed, then once per round in turn.

    Args:
      contenders: the contenders.
      work: each contender's pieces of work, in its worker's format.
      rounds: number of timed rounds.

    Returns:
      For each contender: `seconds`, a list for each piece of its times; `peak_bytes`, its highest
      resident memory; `compile_seconds`, what the untimed pass took; `versions`.
    """
    with running(contenders) as processes:
        results: dict[str, dict[str, Any]] = {}
        for name, process in processes.items():
            print(f"Warming up {name}.", file=sys.stderr, flush=True)
            warm = process.ask({"pieces": list(work[name])})
            results[name] = {
                "seconds": [[] for _ in work[name]],
                "compile_seconds": sum(warm["seconds"]),
                "versions": process.versions,
            }
        for _ in range(rounds):
            for name, process in processes.items():
                answer = process.ask({"pieces": list(work[name])})
                for times, seconds in zip(results[name]["seconds"], answer["seconds"], strict=True):
                    times.append(seconds)
                results[name]["peak_bytes"] = answer["peak_bytes"]
    return results


def median_total(result: Mapping[str, Any]) -> float:
    """Returns the seconds that a contender's pieces take together, by the median of each."""
    return sum(statistics.median(times) for times in result["seconds"])


def machine() -> dict[str, Any]:
    """Returns a description of the machine."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = named[0] if named else model
    flags = cpu_flags()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS_OF_INTEREST if flag in flags],
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in OUR_PACKAGES},
        "date": datetime.date.today().isoformat(),
    }


def comparison(
    title: str, rows: Sequence[tuple[str, float, str, float | None]]
) -> tuple[str, list[dict[str, Any]]]:
    """Returns a table of results and targets, and the same as JSON-able rows.

    Args:
      title: above the table.
      rows: name, value, "<=" or ">=" or "" and the target, None where there is none.
    """
    lines, found = [title], []
    for name, value, sign, target in rows:
        met = None if target is None else value <= target if sign == "<=" else value >= target
        verdict = "" if met is None else f"  target {sign} {target:g}: {'met' if met else 'missed'}"
        lines.append(f"  {name:<46}{value:>10.3f}{verdict}")
        found.append({"name": name, "value": value, "sign": sign, "target": target, "met": met})
    return "\n".join(lines), found


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result with a description of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, "machine": machine()}, indent=2) + "\n")


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the peer's environment."""
    parser.add_argument(
        "--peer_python", help="an interpreter with torch, transformers and peft; default: make one"
    )
    parser.add_argument("--no_peer", action="store_true", help="leave PEFT out")
