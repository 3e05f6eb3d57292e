"""Counts the FLOPs of a program's matrix products, for MFU.

XLA's cost analysis counts a loop's body once, regardless of its iterations, and T5's layers are a
loop. Here, the body of a `lax.scan` counts once per iteration. As is usual for MFU (Chowdhery et
al., 2022, appendix B), only matrix products count, including those recomputed by `remat`.
"""

import math
from collections.abc import Iterator
from typing import Any


def matmul_flops(jaxpr: Any) -> int:
    """Returns the FLOPs of all matrix products in a jaxpr; a multiply-add is 2 FLOPs.

    Counts the most expensive branch of a `cond`, and the body of a `while_loop`, whose number of
    iterations is unknown, once. Kernels count all their programs, and so the padding of blocks.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        inner = [matmul_flops(body) for body in _bodies(equation.params)]
        if equation.primitive.name == "dot_general":
            total += _dot_general_flops(equation)
        elif equation.primitive.name == "scan":
            total += equation.params["length"] * sum(inner)
        elif equation.primitive.name == "cond":
            total += max(inner, default=0)
        elif equation.primitive.name == "pallas_call":
            total += math.prod(equation.params["grid_mapping"].grid) * sum(inner)
        elif equation.primitive.name == "shard_map":
            total += equation.params["mesh"].size * sum(inner)
        else:
            total += sum(inner)
    return total


def _dot_general_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _bodies(parameters: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs among an equation's parameters."""
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item
