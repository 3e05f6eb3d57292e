"""Registers functions and dataclasses with gin, with each option's effect on a run's identity.

    @register
    def population(places: Free[int] = 16): ...

    train = register(Training, name="train")

A parameter, or a field, of type `Fields[SomeDataclass]` is replaced by the fields of that
dataclass, from which an instance is created. So an option's name, default and mark (`settings.py`)
are written once, in its definition.
"""

import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import gin

from prompt_tuning.errors import UserError
from prompt_tuning.recipes import signatures
from prompt_tuning.recipes.signatures import flattened

_ELSE_SET_BY = "--gin_file=runs/train.gin"
_SET_BY = {
    "train.method": "a --gin_file of prompts/ or methods/, such as prompts/class_label.gin",
    "data.mixture_or_task": "a --gin_file of tasks/, such as tasks/superglue_rte.gin",
}
"""Hint for each required parameter; `_ELSE_SET_BY` is the fallback."""

FUNCTIONS: dict[str, Any] = {}
"""Registered configurables by name, as returned by `register`."""


def register(function: Any, *, name: str | None = None, per_member: bool = False) -> Any:
    """Returns a function or dataclass with its arguments configurable by gin.

    If neither gin nor the caller provides a required argument, it raises a UserError that names
    the missing gin file.

    Args:
      function: its parameters, or fields, may have marks (`settings.py`).
      name: gin's name for it; None is its own name.
      per_member: as in `signatures.add`.
    """
    name = str(name or function.__name__)
    flat = flattened(function, name)
    signatures.add(name, flat, per_member=per_member)
    make_configurable: Any = gin.configurable(name)
    configurable = make_configurable(flat)

    @functools.wraps(configurable)
    def filled_in(*args: Any, **kwargs: Any) -> Any:
        try:
            return configurable(*args, **kwargs)
        except TypeError:
            given = inspect.signature(flat).bind_partial(*args, **kwargs).arguments
            missing = [each for each in _not_set(name) if each.partition(".")[2] not in given]
            if not missing:
                raise
            raise _nothing_sets(missing) from None

    filled_in.__name__ = name
    FUNCTIONS[name] = filled_in
    return filled_in


def require(function: Any) -> None:
    """Checks that all required parameters of a registered function are set, without calling it.

    Raises:
      UserError: some aren't; the message names the missing gin file.
    """
    if missing := list(_not_set(function.__name__)):
        raise _nothing_sets(missing)


def _nothing_sets(missing: Sequence[str]) -> UserError:
    hints = dict.fromkeys(_SET_BY.get(name, _ELSE_SET_BY) for name in missing)
    return UserError(f"Nothing sets {', '.join(missing)}: add {', and '.join(hints)}.")


register_per_member = functools.partial(register, per_member=True)


def configurables_with(parameter: str) -> list[str]:
    """Returns the configurables that have a parameter of this name."""
    return [name for name in FUNCTIONS if parameter in signatures.PARAMETERS[name]]


def _not_set(name: str) -> Iterator[str]:
    """Yields the required parameters that gin doesn't set."""
    for parameter in signatures.PARAMETERS[name].values():
        full = f"{name}.{parameter.name}"
        if parameter.default is parameter.empty:
            try:
                gin.query_parameter(full)
            except ValueError:
                yield full
