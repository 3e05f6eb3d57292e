"""What devices send each other in a compiled program: read from its text, once and for each loop.

    compiled = jax.jit(step).lower(*shapes).compile()
    for found in collectives(compiled.as_text(), mesh): ...

XLA writes the operations in; nothing of the model names them. So this is how it is known that a
step moves no weights under tensor parallelism, and only the prompt's gradient between hosts.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jax.sharding import AbstractMesh, Mesh

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(r"(?:body|calls|to_apply|branch_computations|true_computation|"
                     r"false_computation)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One operation of the program.

    Attributes:
      kind: of `KINDS`.
      axes: the mesh axes along which the devices differ that take part together.
      shapes: of what each device has afterwards, such as "f32[8,512]".
      bytes: of these together.
      times: how often it runs in one run of the program: once, or as often as the loops around it.
    """

    kind: str
    axes: tuple[str, ...]
    shapes: tuple[str, ...]
    bytes: int
    times: int


def collectives(text: str, mesh: Mesh | AbstractMesh) -> list[Collective]:
    """Returns every collective of a compiled program.

    Args:
      text: the program's, from `compiled.as_text()`.
      mesh: the one that it was compiled for.
    """
    bodies = dict(_computations(text))
    found: list[Collective] = []

    def visit(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            if match := _INSTRUCTION.search(line):
                shapes = _SHAPE.findall(match[1])
                found.append(
                    Collective(
                        kind=match[2],
                        axes=_axes(line, mesh),
                        shapes=tuple(f"{dtype}[{sizes}]" for dtype, sizes in shapes),
                        bytes=sum(_size(*shape) for shape in shapes),
                        times=times,
                    )
                )
            trips = _TRIPS.search(line)
            for called in _CALLED.findall(line):
                for inner in called.replace("%", "").split(", "):
                    visit(inner, times * (int(trips[1]) if trips else 1))

    (entry,) = [name for name in bodies if name.startswith("ENTRY ")]
    visit(entry, 1)
    return found


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each computation's name, the main one's with ENTRY before it, and its lines."""
    name, lines = "", []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name, lines = (match[1] or "") + match[2], []
        elif line.startswith("}"):
            yield name, lines
        else:
            lines.append(line)


def _size(dtype: str, sizes: str) -> int:
    bits = re.search(r"\d+$", dtype)
    width = _BYTES.get(dtype) or (int(bits[0]) // 8 if bits else 0)
    return width * math.prod(int(size) for size in sizes.split(",") if size)


def _axes(line: str, mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """Returns the axes along which the devices of a group differ."""
    shape = tuple(mesh.shape.values())
    differ: set[int] = set()
    for group in _groups(line, math.prod(shape)):
        places = np.array(np.unravel_index(group, shape))
        differ |= {axis for axis, row in enumerate(places) if len(set(row.tolist())) > 1}
    return tuple(name for axis, name in enumerate(mesh.axis_names) if axis in differ)


def _groups(line: str, devices: int) -> list[list[int]]:
    """Returns the devices of each group, however they are written down."""
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        return _numbered(match[2], match[3]).reshape(int(match[1].split(",")[0]), -1).tolist()
    named = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
    if match := re.search(named + r" \{('\w+'(?:,\s*'\w+')*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        together = re.findall(r"'(\w+)'", match[4])
        numbers = _numbered(match[2] or str(math.prod(sizes.values())), match[3])
        numbers = numbers.reshape(list(sizes.values()))
        last = [list(sizes).index(name) for name in together]
        numbers = np.moveaxis(numbers, last, range(-len(last), 0))
        return numbers.reshape(-1, math.prod(sizes[name] for name in together)).tolist()
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}", line):
        return [[int(n) for n in re.findall(r"\d+", group)] for group in match[1].split("},")]
    if re.search(r"replica_groups=(?!\{\})", line):
        raise ValueError(f"Can't read the groups of devices in: {line.strip()}")
    return [list(range(devices))]


def _numbered(dims: str, order: str | None) -> np.ndarray:
    """Returns the numbers from 0 on in an array "2,4", its axes put into the order "1,0"."""
    shape = [int(size) for size in dims.split(",")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose([int(axis) for axis in order.split(",")]) if order else numbers
