"""The modules of the layers that a method can change, and their sizes.

A method receives them as values, since it knows no model:

    targets = select_targets(projections(config), ("attention/query", "attention/value"))

Names are those of `injection.py`: "encoder/attention/query", "decoder/mlp/wo".
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.parameters import Architecture


@dataclass(frozen=True, kw_only=True)
class Target:
    """A module that every layer of a stack has.

    Attributes:
      name: "STACK/MODULE".
      layers: of the stack.
      inputs: sizes of the axes that it takes, without batch and length.
      outputs: those of what it returns.
    """

    name: str
    layers: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Values in a projection's kernel, of all layers."""
        return self.layers * math.prod(self.inputs) * math.prod(self.outputs)


def projections(config: Architecture) -> tuple[Target, ...]:
    """Returns every matrix product of the layers that has a kernel."""
    return tuple(
        Target(
            name=each.module,
            layers=each.layers,
            inputs=each.shape[1 : 1 + each.inputs],
            outputs=each.shape[1 + each.inputs :],
        )
        for each in config.parameters()
        if each.layers and each.inputs
    )


def attention_blocks(config: Architecture) -> tuple[Target, ...]:
    """Returns the attention blocks; `outputs` are the axes of their keys, [heads, head_dim]."""
    keys = select_targets(projections(config), ("key",))
    return tuple(dataclasses.replace(key, name=_block(key)) for key in keys)


def scalable(config: Architecture) -> tuple[Target, ...]:
    """Returns what can be multiplied by factors: keys, values and feed-forward hidden layers."""
    return tuple(
        # What "wo" reads is the hidden layer.
        Target(
            name=f"{_block(each)}/hidden",
            layers=each.layers,
            inputs=each.outputs,
            outputs=each.inputs,
        )
        if _ends(each.name, "wo")
        else each
        for each in select_targets(projections(config), ("key", "value", "wo"))
    )


def blocks(config: Architecture) -> tuple[Target, ...]:
    """Returns the attention and feed-forward blocks, each from `embed` to `embed`."""
    return tuple(
        dataclasses.replace(last, name=_block(last), inputs=last.outputs)
        for last in select_targets(projections(config), ("out", "wo"))
    )


def select_targets(targets: Sequence[Target], endings: Sequence[str]) -> tuple[Target, ...]:
    """Returns the targets whose names end as any of `endings`, in the order of `targets`.

    An ending is a whole part of a name or several: "query" is every query, "attention/query" the
    encoder's alone, "encoder" nothing.

    Raises:
      UserError: an ending fits no target.
    """
    for ending in endings:
        if not any(_ends(target.name, ending) for target in targets):
            known = sorted({part for t in targets for part in (t.name, t.name.split("/")[-1])})
            raise UserError(
                f"The model has nothing called '{ending}' to reach into; expected, for example, "
                f"{', '.join(sorted({t.name.split('/')[-1] for t in targets}))}."
                f"{did_you_mean(ending, known)}"
            )
    return tuple(t for t in targets if any(_ends(t.name, ending) for ending in endings))


def _ends(name: str, ending: str) -> bool:
    return f"/{name}".endswith(f"/{ending}")


def _block(projection: Target) -> str:
    return projection.name.rpartition("/")[0]
