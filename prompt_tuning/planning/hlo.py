"""Analyzes compiled XLA programs: matrix products, collectives, and arrays saved by loops.

    program = Program(compiled.as_text(), mesh)
    for found in program.collectives(): ...

XLA's cost analysis counts the body of a loop once, regardless of its trip count, and layers are
loops here. So this module parses the text of the compiled program (the grammar is XLA's `hlo_lexer`
and `hlo_parser`), and multiplies each loop's body by XLA's known trip count. Shapes are per device.
Collectives are found here only: XLA inserts them, not the model's code.
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
    """An array's element type, by XLA's name, and dimensions."""

    dtype: str
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.lengths))}]"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.lengths)

    @property
    def bytes(self) -> int:
        """Size in bytes, without padding."""
        bits = re.search(r"\d+", self.dtype)
        return self.size * max(int(bits[0]) // 8, 1) if bits else self.size


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of the result.
      opcode: the operation.
      shapes: of the result; several for a tuple.
      operands: names of instructions.
      attributes: the text after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def trip_count(self) -> int:
        """Number of iterations of a loop; 1 if unknown to XLA."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else 1


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product.

    Attributes:
      times: number of executions in one run of the program.
      inputs: total elements of both inputs.
      output: elements of the output.
      flops: per execution; a multiply-add is 2 FLOPs.
    """

    times: int
    inputs: int
    output: int
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Communication between devices.

    Attributes:
      kind: one of `COLLECTIVES`.
      axes: the mesh axes along which the participating devices differ.
      devices: number of devices per group.
      shapes: of the result per device, such as "f32[8,512]"; those of an asynchronous collective
        may include its operands.
      bytes: of the result per device and execution.
      times: number of executions in one run of the program.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
    shapes: tuple[str, ...]
    bytes: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends per execution, with bandwidth-optimal ring algorithms."""
        n = self.devices
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1.0,
            "collective-permute": 1.0,
        }
        return self.bytes * share.get(self.kind, (n - 1) / n)


class Program:
    """The computations of a compiled program, parsed from its text."""

    def __init__(self, text: str, mesh: Mesh | AbstractMesh):
        """Parses the text of `compiled.as_text()`, compiled for `mesh`."""
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
        """Yields every collective between different devices."""
        for _, instruction, times in self._runs:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            groups = _groups(instruction.attributes, self._mesh.size)
            if groups.shape[1] == 1:
                continue
            # The result of an asynchronous gather or permute includes its operands.
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
        """Returns the bytes of arrays that loops fill, one slice per iteration.

        These are the layers' activations that the backward pass reads: a loop takes an empty array
        with a slice for each of its iterations.
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
        """Yields each instruction with its computation and number of executions."""
        computation = self._computations[name]
        for instruction in computation.values():
            yield computation, instruction, times
            # Skip the scalar computation of a reduction (`to_apply`).
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
    """Whether a value depends only on constants, not on arguments or other loops."""
    instruction = computation[name]
    if instruction.opcode in ("parameter", "get-tuple-element", "while", "rng-bit-generator"):
        return False
    return all(_is_empty(computation, operand) for operand in instruction.operands)


def _computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """Returns the instructions by computation and name, and the entry computation's name."""
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
    # The result's name and shape, or tuple of shapes, then the opcode before its operands.
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
    """Returns the groups of devices that communicate, from any of XLA's formats.

    Raises:
      ValueError: the format is unknown.
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
    """Returns groups along axes of a mesh `'a'=2,'b'=4`: `'b'`, or a part of it, `'b':(1)2`."""
    parts = {
        (name, int(before or 1)): int(part) if part else None
        for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", along)
    }
    lengths: list[int] = []
    inside: list[int] = []
    for name, text in re.findall(r"'([^']+)'=(\d+)", axes):
        # Split an axis into the sizes before a part, of the part, and after it.
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
    """Returns the flat array for `[2,8]T(1,0)`: a range, reshaped and transposed."""
    shape, _, order = text.partition("T")
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
