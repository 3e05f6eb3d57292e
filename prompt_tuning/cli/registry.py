"""What gin can configure: functions and dataclasses, and what each of their options is to a run.

    @register
    def population(places: Free[int] = 16): ...

    train = register(Training, name="train")

A parameter, or a field, of type `Fields[SomeDataclass]` stands for the fields of that dataclass:
gin sees those, and the dataclass is made of them. So an option is written once, where it is
defined, with its default and with what it is to a run (`settings.py`).
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
"""What sets a parameter that has no default; `_ELSE_SET_BY` all others."""

FUNCTIONS: dict[str, Any] = {}
"""What is registered, by name, as `register` returned it."""


def register(function: Any, *, name: str | None = None, per_member: bool = False) -> Any:
    """Makes a function or dataclass configurable by gin; the result fills in what it can.

    Called without a value that neither gin nor the caller has, it raises a UserError that names
    the gin file that is missing.

    Args:
      function: its parameters, or fields, may be marked as `settings.py` says.
      name: gin's name for it; None is its own.
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
    """Checks that all parameters of what `register` returned have a value, without calling it.

    Raises:
      UserError: some have none; it names the gin file that is missing.
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
    """Yields the parameters without a default for which gin has no value."""
    for parameter in signatures.PARAMETERS[name].values():
        full = f"{name}.{parameter.name}"
        if parameter.default is parameter.empty:
            try:
                gin.query_parameter(full)
            except ValueError:
                yield full
