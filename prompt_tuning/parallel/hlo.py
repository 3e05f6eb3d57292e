"""Reads what XLA compiled: its matrix products, collectives, and what its loops keep for later.

XLA's own cost analysis counts the body of a loop once, however often it runs, and layers are
loops here. So the text of the compiled program is read instead (`compiled.as_text()`; the grammar
is XLA's `hlo_lexer` and `hlo_parser`), each loop's body as often as XLA itself says that it runs.
Shapes in it are those of one device.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

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
    """One array's element type, in XLA's name for it, and lengths."""

    dtype: str
    lengths: tuple[int, ...]

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

    shapes: one, or those of a tuple.
    operands: names.
    attributes: the text after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str

    def computations(self, attribute: str) -> tuple[str, ...]:
        """Returns the names of the computations that an attribute gives."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.-]+)", self.attributes)
        return tuple(re.findall(r"[\w.-]+", found[1])) if found else ()

    def dimensions(self, attribute: str) -> tuple[int, ...]:
        """Returns the numbers that an attribute lists."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(number) for number in found[1].split(",") if number) if found else ()

    @property
    def trip_count(self) -> int:
        """How often a loop's body runs; 1 where XLA doesn't know."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"', self.attributes)
        return int(found[1]) if found else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product, and how often it runs.

    inputs, output: elements.
    flops: of one run; a multiply and an add are two.
    """

    times: int
    inputs: int
    output: int
    flops: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Communication among devices, and how often it happens.

    kind: one of `COLLECTIVES`.
    shapes: of the result on one device; an asynchronous one's may tell what it was given as well.
    bytes: of the result on one device, of one run.
    groups: [group, device]: the devices that talk with each other; one row if all do.
    """

    kind: str
    times: int
    shapes: tuple[Shape, ...]
    bytes: int
    groups: np.ndarray

    @property
    def sent(self) -> float:
        """Bytes that a device sends for one run, by the ring algorithms that need the fewest."""
        n = self.groups.shape[1]
        share = {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1.0,
            "collective-permute": 1.0,
        }
        return self.bytes * share.get(self.kind, (n - 1) / n)


class Program:
    """A compiled program's computations, as their text says."""

    def __init__(self, text: str, devices: int):
        """Args: what `compiled.as_text()` gives, and how many devices run it together."""
        self._computations, self._entry = _computations(text)
        self._devices = devices
        self._runs = list(self._walk(self._entry, 1))

    def products(self) -> Iterator[Product]:
        """Yields every matrix product."""
        for computation, instruction, times in self._runs:
            if instruction.opcode != "dot":
                continue
            left, right = (computation[name].shapes[0] for name in instruction.operands)
            contracted = instruction.dimensions("lhs_contracting_dims")
            output = instruction.shapes[0].size
            yield Product(
                times=times,
                inputs=left.size + right.size,
                output=output,
                flops=2 * output * math.prod(left.lengths[axis] for axis in contracted),
            )

    def collectives(self) -> Iterator[Collective]:
        """Yields every communication, those that one device has with itself left out."""
        for _, instruction, times in self._runs:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            groups = _groups(instruction, self._devices)
            if groups.shape[1] > 1:
                # An asynchronous gather or permute returns what it was given as well.
                given_too = instruction.opcode in ("all-gather-start", "collective-permute-start")
                sizes = [shape.bytes for shape in instruction.shapes]
                size = max(sizes) if given_too else sum(sizes)
                yield Collective(
                    kind=kind, times=times, shapes=instruction.shapes, bytes=size, groups=groups
                )

    def kept_bytes(self) -> int:
        """Returns what loops write step by step into arrays that outlive them.

        These are the activations of each layer that the backward pass reads: a loop is given an
        empty array with a place for each of its steps.
        """
        kept = 0
        for computation, instruction, _ in self._runs:
            if instruction.opcode != "while":
                continue
            values = computation.get(instruction.operands[0])
            if values is None or values.opcode != "tuple":
                continue
            trips = instruction.trip_count
            for name, shape in zip(values.operands, values.shapes, strict=True):
                stacked = trips > 1 and shape.lengths and shape.lengths[0] % trips == 0
                if stacked and len(shape.lengths) > 1 and _is_empty(computation, name):
                    kept += shape.bytes
        return kept

    def _walk(
        self, name: str, times: int
    ) -> Iterator[tuple[Mapping[str, Instruction], Instruction, int]]:
        computation = self._computations[name]
        for instruction in computation.values():
            yield computation, instruction, times
            for attribute, factor in (
                ("body", instruction.trip_count),
                ("calls", 1),
                ("branch_computations", 1),
                ("to_apply", 1),
            ):
                if attribute == "to_apply" and instruction.opcode != "call":
                    continue  # what a reduction does with two numbers
                for inner in instruction.computations(attribute):
                    yield from self._walk(inner, times * factor)


def _is_empty(computation: Mapping[str, Instruction], name: str) -> bool:
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
    head = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line)
    if not head:
        return None
    shape_end = _end(line, head.end()) if line[head.end()] == "(" else line.index(" ", head.end())
    opcode = re.match(r"\s*([\w-]+)\(", line[shape_end:])
    if not opcode:
        return None
    start = shape_end + opcode.end() - 1
    end = _end(line, start)
    return Instruction(
        name=head[1],
        opcode=opcode[1],
        shapes=tuple(
            Shape(dtype, tuple(int(length) for length in lengths.split(",") if length))
            for dtype, lengths in re.findall(
                r"\b([a-z]\w*)\[([\d,]*)\]", line[head.end() : shape_end]
            )
        ),
        operands=tuple(re.findall(r"%([\w.-]+)", line[start:end])),
        attributes=line[end:],
    )


def _end(line: str, start: int) -> int:
    """Returns the place after the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if depth == 0:
            return place + 1
    return len(line)


def _groups(instruction: Instruction, devices: int) -> np.ndarray:
    """Returns who talks with whom, [group, device], from any of the three ways to write it.

    Raises:
      ValueError: it is written in another way.
    """
    text = instruction.attributes
    if found := re.search(r"replica_groups=\{\{([\d,{}]*)\}\}", text):
        return np.array([_numbers(group) for group in found[1].split("},{")])
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _iota(found[2]).reshape(_numbers(found[1]))
    if found := re.search(r"source_target_pairs=\{\{([\d,{}]*)\}\}", text):
        return np.array([_numbers(pair) for pair in found[1].split("},{")])
    mesh = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? \{([^}]*)\}"
    if found := re.search(mesh, text):
        return _mesh_groups(found[1], found[2], found[3])
    if re.search(r"replica_groups=(?!\{\})", text):
        raise ValueError(f"Can't read the groups of devices in: {text.strip()}")
    return np.arange(devices)[None]


def _mesh_groups(axes: str, ids: str | None, along: str) -> np.ndarray:
    """Groups told as axes of a mesh: `'a'=2,'b'=4`, and `'b'` or a part of it, `'b':(1)2`."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    chosen = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", along)
    lengths: list[int] = []
    inside: list[int] = []
    for name, size in sizes.items():
        # An axis is cut at the ends of the parts of it that are meant.
        parts = [(int(before), int(part)) for n, before, part in chosen if n == name and part]
        if any(n == name and not part for n, _, part in chosen):
            parts = [(1, size)]
        done = 1
        for before, part in sorted(parts):
            lengths.append(before // done)
            inside.append(len(lengths))
            lengths.append(part)
            done = before * part
        lengths.append(size // done)
    places = _iota(ids) if ids else np.arange(math.prod(sizes.values()))
    places = places.reshape(lengths)
    size = math.prod(lengths[axis] for axis in inside)
    return np.moveaxis(places, inside, range(-len(inside), 0)).reshape(-1, size)


def _iota(text: str) -> np.ndarray:
    """Returns `[2,8]T(1,0)`: so many numbers in that shape, transposed, in a row."""
    shape, _, order = text.partition("T")
    lengths = _numbers(shape)
    numbers = np.arange(math.prod(lengths)).reshape(lengths)
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _numbers(text: str) -> Sequence[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
