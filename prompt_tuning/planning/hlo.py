"""Reads what XLA compiled: its matrix products, collectives, and what its loops keep for later.

    program = Program(compiled.as_text(), mesh)
    for found in program.collectives(): ...

XLA's own cost analysis counts the body of a loop once, however often it runs, and layers are
loops here. So the text of the compiled program is read instead (the grammar is XLA's `hlo_lexer`
and `hlo_parser`), each loop's body as often as XLA itself says that it runs. Shapes in it are
those of one device. Nothing of the model names collectives: XLA writes them in.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Int

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array's element type, by XLA's name, and lengths."""

    dtype: str
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.lengths))}]"

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.lengths)

    @property
    def bytes(self) -> int:
        """Bytes, without padding."""
        bits = re.search(r"\d+", self.dtype)
        return self.size * max(int(bits[0]) // 8, 1) if bits else self.size


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of its result.
      opcode: what it does.
      shapes: of the result: one, or those of a tuple.
      operands: names.
      attributes: the text after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def trip_count(self) -> int:
        """How often a loop's body runs; 1 where XLA doesn't know."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else 1


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product, and how often it runs.

    Attributes:
      times: how often.
      inputs: elements of both.
      output: elements.
      flops: of one run; a multiply and an add are two.
    """

    times: int
    inputs: int
    output: int
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Communication among devices.

    Attributes:
      kind: one of `COLLECTIVES`.
      axes: the mesh axes along which the devices that take part together differ.
      devices: how many those are.
      shapes: of the result on one device, such as "f32[8,512]"; an asynchronous one's may include
        what it was given.
      bytes: of the result on one device, of one run.
      times: how often it runs in one run of the program.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    shapes: tuple[str, ...]
    bytes: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends for one run, by the ring algorithms that need the fewest."""
        n = self.devices
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1.0,
            "collective-permute": 1.0,
        }
        return self.bytes * share.get(self.kind, (n - 1) / n)


class Program:
    """A compiled program's computations, as their text says."""

    def __init__(self, text: str, mesh: Mesh | AbstractMesh):
        """Args: what `compiled.as_text()` gives, and the mesh that it was compiled for."""
        self._computations, entry = _computations(text)
        self._mesh = mesh
        self._runs = list(self._walk(entry, 1))

    def products(self) -> Iterator[Product]:
        """Yields every matrix product."""
        for computation, instruction, times in self._runs:
            if instruction.opcode != "dot":
                continue
            left, right = (computation[name].shapes[0] for name in instruction.operands)
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
            summed = [left.lengths[axis] for axis in _numbers(contracted[1] if contracted else "")]
            output = instruction.shapes[0].size
            yield Product(
                times=times,
                inputs=left.size + right.size,
                output=output,
                flops=2 * output * math.prod(summed),
            )

    def collectives(self) -> Iterator[Collective]:
        """Yields every communication, those that one device has with itself left out."""
        for _, instruction, times in self._runs:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            groups = _groups(instruction.attributes, self._mesh.size)
            if groups.shape[1] == 1:
                continue
            # An asynchronous gather or permute returns what it was given as well.
            given_too = instruction.opcode in ("all-gather-start", "collective-permute-start")
            sizes = [shape.bytes for shape in instruction.shapes]
            yield Collective(
                kind=kind,
                axes=self._axes(groups),
                devices=groups.shape[1],
                shapes=tuple(map(str, instruction.shapes)),
                bytes=max(sizes) if given_too else sum(sizes),
                times=times,
            )

    def kept_bytes(self) -> int:
        """Returns what loops write step by step into arrays that outlive them.

        These are the activations of each layer that the backward pass reads: a loop is given an
        empty array with a place for each of its steps.
        """
        kept = 0
        for computation, instruction, _ in self._runs:
            values = computation.get(next(iter(instruction.operands), ""))
            if instruction.opcode != "while" or values is None or values.opcode != "tuple":
                continue
            trips = instruction.trip_count
            for name, shape in zip(values.operands, values.shapes, strict=True):
                stacked = trips > 1 and len(shape.lengths) > 1 and shape.lengths[0] % trips == 0
                if stacked and _is_empty(computation, name):
                    kept += shape.bytes
        return kept

    def _walk(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        """Yields each instruction with its computation and how often it runs."""
        computation = self._computations[name]
        for instruction in computation.values():
            yield computation, instruction, times
            # What a reduction does with two numbers (`to_apply`) is left out.
            names = "body|calls|branch_computations" + "|to_apply" * (instruction.opcode == "call")
            called = rf"\b({names})=(\{{[^}}]*\}}|%?[\w.-]+)"
            for attribute, inner in re.findall(called, instruction.attributes):
                factor = instruction.trip_count if attribute == "body" else 1
                for each in re.findall(r"[\w.-]+", inner):
                    yield from self._walk(each, times * factor)

    def _axes(self, groups: Int[np.ndarray, "group device"]) -> tuple[str, ...]:
        places = np.unravel_index(groups, tuple(self._mesh.shape.values()))
        return tuple(
            name
            for name, place in zip(self._mesh.axis_names, places, strict=True)
            if np.any(place != place[:, :1])
        )


def _is_empty(computation: Computation, name: str) -> bool:
    """Whether a value comes from constants alone, neither from arguments nor from other loops."""
    instruction = computation[name]
    if instruction.opcode in ("parameter", "get-tuple-element", "while", "rng-bit-generator"):
        return False
    return all(_is_empty(computation, operand) for operand in instruction.operands)


def _computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Returns every computation by name, each with its instructions by name, and which is run."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _instruction(line)):
            current[found.name] = found
    return computations, entry


def _instruction(line: str) -> Instruction | None:
    line = re.sub(r"/\*.*?\*/", "", line)
    # A name, then the result's shape or tuple of shapes, and an opcode before its operands.
    head = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(", line)
    if not head:
        return None
    start = end = head.end() - 1
    depth = 1
    while depth and end + 1 < len(line):
        end += 1
        depth += {"(": 1, ")": -1}.get(line[end], 0)
    shapes = re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", head[2])
    return Instruction(
        name=head[1],
        opcode=head[3],
        shapes=tuple(Shape(dtype, tuple(_numbers(lengths))) for dtype, lengths in shapes),
        operands=tuple(re.findall(r"%([\w.-]+)", line[start:end])),
        attributes=line[end + 1 :],
    )


def _groups(text: str, devices: int) -> Int[np.ndarray, "group device"]:
    """Returns the devices that communicate, from any of the ways to write them.

    Raises:
      ValueError: they are written in another way.
    """
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,{}]*)\}\}", text):
        return np.array([_numbers(group) for group in found[1].split("},{")])
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _iota(found[2]).reshape(_numbers(found[1]))
    mesh = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? \{([^}]*)\}"
    if found := re.search(mesh, text):
        return _mesh_groups(found[1], found[2], found[3])
    if re.search(r"replica_groups=(?!\{\})", text):
        raise ValueError(f"Can't read the groups of devices in: {text.strip()}")
    return np.arange(devices)[None]


def _mesh_groups(axes: str, ids: str | None, along: str) -> Int[np.ndarray, "group device"]:
    """Groups along axes of a mesh `'a'=2,'b'=4`: along `'b'`, or a part of it, `'b':(1)2`."""
    parts = {
        (name, int(before or 1)): int(part) if part else None
        for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", along)
    }
    lengths: list[int] = []
    inside: list[int] = []
    for name, text in re.findall(r"'([^']+)'=(\d+)", axes):
        # An axis is cut into what is before a part, the part, and what is after it.
        done, size = 1, int(text)
        for before in sorted(before for other, before in parts if other == name):
            part = parts[name, before] or size
            inside.append(len(lengths) + 1)
            lengths += [before // done, part]
            done = before * part
        lengths.append(size // done)
    places = (_iota(ids) if ids else np.arange(math.prod(lengths))).reshape(lengths)
    size = math.prod(lengths[axis] for axis in inside)
    return np.moveaxis(places, inside, range(-len(inside), 0)).reshape(-1, size)


def _iota(text: str) -> np.ndarray:
    """Returns `[2,8]T(1,0)`: so many numbers in that shape, transposed, in a row."""
    shape, _, order = text.partition("T")
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
