"""What devices send each other in a compiled program: read from its text, once and for each loop.

    compiled = jax.jit(step).lower(*shapes).compile()
    for found in collectives(compiled.as_text(), mesh): ...

XLA writes the operations in; nothing of the model names them. So this is how it is known that a
step moves no weights under tensor parallelism, and only the prompt's gradient between hosts.
"""

from dataclasses import dataclass

import numpy as np
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Int

from prompt_tuning.parallel.hlo import Program


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One operation of the program.

    Attributes:
      kind: of `hlo.COLLECTIVES`.
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
    """Returns every collective of a compiled program among more than one device.

    Args:
      text: the program's, from `compiled.as_text()`.
      mesh: the one that it was compiled for.
    """
    return [
        Collective(
            kind=found.kind,
            axes=_axes(found.groups, mesh),
            shapes=tuple(
                f"{shape.dtype}[{','.join(map(str, shape.lengths))}]" for shape in found.shapes
            ),
            bytes=found.bytes,
            times=found.times,
        )
        for found in Program(text, mesh.size).collectives()
    ]


def _axes(groups: Int[np.ndarray, "group device"], mesh: Mesh | AbstractMesh) -> tuple[str, ...]:
    """Returns the axes along which the devices of a group differ."""
    places = np.unravel_index(groups, tuple(mesh.shape.values()))
    return tuple(
        name
        for name, place in zip(mesh.axis_names, places, strict=True)
        if np.any(place != place[:, :1])
    )
