"""Counts the matrix products of a program: what MFU is a share of.

XLA's own count takes a loop's body once, however often it runs, and T5's layers are a loop. Here
it counts as often as `lax.scan` repeats it. As is usual for MFU (Chowdhery et al., 2022,
appendix B), only matrix products count. What `remat` computes a second time is in the program and
counts.
"""

import math
from collections.abc import Iterator
from typing import Any


def matmul_flops(jaxpr: Any) -> int:
    """Returns the FLOPs of all matrix products in a jaxpr; a multiply and an add are two.

    Of branches the costliest counts; the body of a `while_loop`, whose length is unknown, once.
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
