"""Analyzes compiled XLA programs: kernels with their costs, and collectives.

XLA's cost analysis counts the body of a loop once, regardless of its trip count, and layers are
loops here. So this module parses the text of the compiled program (the grammar is XLA's `hlo_lexer`
and `hlo_parser`), and multiplies each loop's body by its trip count. Shapes are per device.
Collectives are found here only: XLA inserts them, not the model's code.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

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

_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call")
"""Operations that move no data themselves; so does the second half of an asynchronous one."""

_CALLED = r"\bcalls=%?([\w.-]+)"

_WRAPPERS = re.compile(
    r"(transpose|jvp|vmap|remat|shard_map)\(.*\)|while|body|cond|closed_call|checkpoint|"
    r"rematted_computation|layers|branch_\d+_fun|[A-Z]\w*\.\w+"
)
"""Parts of an operation's name in the source that say how it was transformed, not what it is."""


class Shape(NamedTuple):
    """An array's element type, by XLA's name, and dimensions."""

    dtype: str
    lengths: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in bytes, without padding."""
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.lengths) * max(int(bits[0]) // 8 if bits else 1, 1)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of the result.
      opcode: the operation.
      shapes: of the result; several for a tuple.
      operands: names of instructions; of a constant, its value.
      attributes: the text after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str

    @property
    def sizes(self) -> list[int]:
        """Bytes of the result's arrays, without padding."""
        return [shape.bytes for shape in self.shapes]

    def find(self, pattern: str) -> str:
        """Returns the first group of a pattern in the attributes, or an empty string."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    @property
    def source(self) -> tuple[str, str]:
        """What the source calls it, and "forward", "backward" or "recomputed"."""
        path = self.find(r'op_name="([^"]*)"').split("/")
        phase = "backward" if any(part.startswith("transpose(") for part in path) else "forward"
        phase = "recomputed" if "rematted_computation" in path else phase
        # The first part is the program, the last one the operation.
        parts = [part for part in path[1:-1] if not _WRAPPERS.fullmatch(part)] or path[-1:]
        name = "/".join(re.sub(r"^jit\((.*)\)$", r"\1", part) for part in parts)
        return name or "(the compiler's own)", phase


Computation = Mapping[str, Instruction]


class Kernel(NamedTuple):
    """An instruction that a device executes; numbers are for one execution on one device.

    Attributes:
      name, phase: as `Instruction.source`.
      times: number of executions in one run of the program.
      cycles: the TPU compiler's own estimate; 0 if it has none.
      flops: of matrix products; a multiply-add is 2 FLOPs. A Pallas kernel states its own. 0 for
        other kernels of TPUs, whose programs have convolutions in place of products.
      float32: whether the products' inputs are float32.
      moved: bytes read and written.
      pallas: whether it is a Pallas kernel of a TPU.
    """

    name: str
    phase: str
    times: int
    cycles: int
    flops: int
    float32: bool
    moved: int
    pallas: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """Communication between devices.

    Attributes:
      kind: one of `COLLECTIVES`.
      axes: the mesh axes along which the participating devices differ.
      devices: number of devices per group.
      bytes: of the result per device and execution.
      times: number of executions in one run of the program.
    """

    kind: str
    axes: tuple[str, ...]
    devices: int
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

    def __init__(self, text: str):
        """Parses the text of `compiled.as_text()`."""
        self._computations, entry = _computations(text)
        self._runs = list(self._walk(entry, 1))

    def kernels(self) -> Iterator[Kernel]:
        """Yields every instruction that takes time, other than collectives."""
        for computation, instruction, times in self._runs:
            start, _, half = instruction.opcode.rpartition("-")
            if half == "done" or {instruction.opcode, start} & {*_FREE, *COLLECTIVES}:
                continue
            if instruction.opcode == "fusion":
                inside = self._computations[instruction.find(_CALLED)]
            else:
                inside = {
                    name: dataclasses.replace(computation[name], opcode="parameter")
                    for name in instruction.operands
                } | {instruction.name: instruction}
            products = list(self._products(inside))
            yield Kernel(
                *instruction.source,
                times=times,
                cycles=int(instruction.find(r'"estimated_cycles":"(\d+)"') or 0),
                flops=sum(flops for flops, _ in products)
                or int(instruction.find(r'"flops":"(\d+)"') or 0),
                float32=any(dtype == "f32" for _, dtype in products),
                moved=_moved(inside),
                pallas=bool(instruction.find('custom_call_target="(tpu_custom_call)"')),
            )

    def collectives(self, mesh: Mesh | AbstractMesh) -> Iterator[Collective]:
        """Yields every collective between different devices of the mesh it was compiled for."""
        for _, instruction, times in self._runs:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            groups = _groups(instruction.attributes, mesh.size)
            if groups.shape[1] == 1:
                continue
            places = np.unravel_index(groups, tuple(mesh.shape.values()))
            differ = [bool(np.any(place != place[:, :1])) for place in places]
            # The result of an asynchronous gather or permute includes its operands.
            given_too = instruction.opcode in ("all-gather-start", "collective-permute-start")
            yield Collective(
                kind=kind,
                axes=tuple(itertools.compress(mesh.axis_names, differ)),
                devices=groups.shape[1],
                bytes=max(instruction.sizes) if given_too else sum(instruction.sizes),
                times=times,
            )

    def _walk(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        """Yields each instruction outside fusions with its computation and its executions."""
        computation = self._computations[name]
        for instruction in computation.values():
            yield computation, instruction, times
            # Skip the scalar computation of a reduction (`to_apply`).
            names = "body|branch_computations|true_computation|false_computation"
            names += "|to_apply" * (instruction.opcode == "call")
            called = rf"\b({names})=(\{{[^}}]*\}}|%?[\w.-]+)"
            for attribute, inner in re.findall(called, instruction.attributes):
                factor = self._trip_count(instruction) if attribute == "body" else 1
                for each in re.findall(r"[\w.-]+", inner):
                    yield from self._walk(each, times * factor)

    def _trip_count(self, loop: Instruction) -> int:
        """Returns the number of iterations of a loop; the most there can be if it can end early."""
        if known := loop.find(r'"known_trip_count":\{"n":"(\d+)"'):
            return int(known)
        # A loop that can end early, and any of a TPU: its condition compares with a constant.
        condition = loop.find(r"\bcondition=%?([\w.-]+)")
        limits = [
            each.operands[0]
            for each in self._with_fused(self._computations[condition])
            if each.opcode == "constant"
        ]
        return max((int(limit) for limit in limits if limit.isdigit()), default=1)

    def _with_fused(self, computation: Computation) -> Iterator[Instruction]:
        """Yields the instructions of a computation and of its fusions."""
        for each in computation.values():
            yield each
            if each.opcode == "fusion":
                yield from self._with_fused(self._computations[each.find(_CALLED)])

    def _products(self, inside: Computation) -> Iterator[tuple[int, str]]:
        """Yields the FLOPs and the inputs' type of each matrix product in a computation."""
        for each in inside.values():
            if each.opcode == "fusion":
                yield from self._products(self._computations[each.find(_CALLED)])
            elif each.opcode == "dot":
                left = inside[each.operands[0]].shapes[0]
                axes = _numbers(each.find(r"lhs_contracting_dims=\{([\d,]*)\}"))
                summed = math.prod(left.lengths[axis] for axis in axes)
                yield 2 * math.prod(each.shapes[0].lengths) * summed, left.dtype


def _moved(inside: Computation) -> int:
    """Returns the bytes that a computation reads and writes.

    Of an array that it slices, only the slices are read, and of one that it updates in place, only
    the update is read and written.
    """

    def read(given: Instruction) -> int:
        found = 0
        for user in inside.values():
            if given.name not in user.operands:
                continue
            if user.opcode == "bitcast":
                found += read(user)
            elif user.opcode in ("dynamic-slice", "slice", "gather"):
                found += sum(user.sizes)
            elif user.opcode != "dynamic-update-slice" or user.operands[0] != given.name:
                return sum(given.sizes)
        return min(found, sum(given.sizes))

    def written(result: Instruction) -> int:
        if result.opcode in ("tuple", "bitcast"):
            return sum(written(inside[name]) for name in result.operands)
        if result.opcode == "dynamic-update-slice":
            return sum(inside[result.operands[1]].sizes)
        return 0 if result.opcode == "parameter" else sum(result.sizes)

    *_, root = inside.values()
    return written(root) + sum(read(each) for each in inside.values() if each.opcode == "parameter")


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
    inside = line[start + 1 : end]
    return Instruction(
        name=head[1],
        opcode=head[3],
        shapes=tuple(Shape(dtype, tuple(_numbers(lengths))) for dtype, lengths in shapes),
        operands=(inside,) if head[3] == "constant" else tuple(re.findall(r"%([\w.-]+)", inside)),
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
