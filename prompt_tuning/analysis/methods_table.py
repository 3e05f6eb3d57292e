"""Trainable parameters and capabilities of each method, derived from its code.

Nothing is computed: a method's initial parameters and injection are traced for their shapes, and
the rest follows from the slots of the injection that it fills. Figure 4 of Lester et al. (2021)
compares methods by the same counts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.methods.base import Method
from prompt_tuning.models.config import ModelConfig
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.parameters import count_parameters

_BATCH = {"encoder_input_tokens": np.ones((1, 8), np.int32), "task": np.zeros(1, np.int32)}
_MERGEABLE = {"low_rank", "scales", "weights"}
_FLOAT32 = 4  # bytes
_SIZES_SHOWN = 2
"""With more models, the table omits the bytes on disk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """The properties of a method on a model.

    Attributes:
      name: of its gin file.
      trained: number of trainable parameters.
      share: `trained` as a fraction of the model's parameters.
      saved_bytes: size of the saved parameters after training, in float32.
      slots: the fields of `Injection` that it fills.
      kernels: whether it trains the model's own matrices.
    """

    name: str
    trained: int
    share: float
    saved_bytes: int
    slots: tuple[str, ...]
    kernels: bool

    @property
    def batches(self) -> bool:
        """Whether examples of one batch can use different trained parameters."""
        return "weights" not in self.slots

    @property
    def merges(self) -> bool:
        """Whether it can be merged into the frozen weights, for inference without overhead."""
        return set(self.slots) <= _MERGEABLE

    @property
    def quantizes(self) -> bool:
        """Whether it can train on a frozen model quantized to int8 or NF4."""
        return not self.kernels


def method_facts(name: str, method: Method, config: ModelConfig) -> MethodFacts:
    """Returns the properties of a method on a model of this config."""
    slots: list[str] = []
    saved: list[Any] = []
    kernels: list[str] = []

    def trace() -> Any:
        variables = method.init(jax.random.key(0), _BATCH)
        folded, numbers = method.fold(variables)
        saved.append(
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), numbers)
        )
        injection = folded.apply(numbers, _BATCH)
        slots.extend(filled_slots(injection))
        kernels.extend(name for name in injection.weights if name.endswith("/kernel"))
        return variables["params"]

    trained = count_parameters(jax.eval_shape(trace))
    return MethodFacts(
        name=name,
        trained=trained,
        share=trained / count_parameters(abstract_params(config)),
        saved_bytes=_FLOAT32 * count_parameters(saved[0]),
        slots=tuple(slots),
        kernels=bool(kernels),
    )


def filled_slots(injection: Injection) -> list[str]:
    """Returns the names of an injection's fields that contain arrays."""
    values = (
        (field.name, getattr(injection, field.name)) for field in dataclasses.fields(injection)
    )
    return [name for name, value in values if jax.tree.leaves(value)]


def methods_table(facts: Mapping[str, Sequence[MethodFacts]], *, markdown: bool = False) -> str:
    """Returns a table with a line per method and columns per model.

    Args:
      facts: of the same methods in the same order, by model name. Lines are sorted by the number
        of trainable parameters on the first model.
      markdown: whether to return a Markdown table.
    """
    order = sorted(range(len(next(iter(facts.values())))), key=lambda i: _trained(facts, i))
    sizes = len(facts) <= _SIZES_SHOWN
    header = ["method"]
    for model in facts:
        header += [f"{model}: trained", *(["on disk"] if sizes else [])]
    header += ["mixed batches", "merges", "on int8/NF4"]
    lines = []
    for place in order:
        of_models = [of_model[place] for of_model in facts.values()]
        first = of_models[0]
        line = [first.name]
        for each in of_models:
            line.append(f"{each.trained:,} ({_percent(each.share)})")
            line += [_size(each.saved_bytes)] if sizes else []
        line += ["yes" if each else "no" for each in (first.batches, first.merges, first.quantizes)]
        lines.append(line)
    if markdown:
        rule = ["---"] + ["---:"] * (len(header) - 4) + ["---"] * 3
        return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *lines]
    )


def _trained(facts: Mapping[str, Sequence[MethodFacts]], place: int) -> int:
    return next(iter(facts.values()))[place].trained


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share > 0.01 else f"{100 * share:.4f} %"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
