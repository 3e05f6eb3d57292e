"""What gin can configure: functions and dataclasses, and what each of their options is to a run.

    @register
    def population(places: Free[int] = 16): ...

    train = register(Training, name="train")

A parameter, or a field, of type `Fields[SomeDataclass]` stands for the fields of that dataclass:
gin sees those, and the dataclass is made of them. So an option is written once, where it is
defined, with its default and with what it is to a run (`settings.py`).
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import gin

from prompt_tuning.errors import UserError
from prompt_tuning.recipes.signatures import Signatures, flattened, split
from prompt_tuning.settings import Mark

_ELSE_SET_BY = "--gin_file=runs/train.gin"
_SET_BY = {
    "train.method": "a --gin_file of prompts/ or methods/, such as prompts/class_label.gin",
    "data.mixture_or_task": "a --gin_file of tasks/, such as tasks/superglue_rte.gin",
}
"""What sets a parameter that has no default; `_ELSE_SET_BY` all others."""

_registered = Signatures()
_functions: dict[str, Any] = {}
_of_members: set[str] = set()


def register(function: Any, *, name: str | None = None, per_member: bool = False) -> Any:
    """Makes a function or dataclass configurable by gin; the result fills in what it can.

    Called without a value that neither gin nor the caller has, it raises a UserError that says
    which gin file is missing.

    Args:
      function: its parameters, or fields, may be marked as `settings.py` says.
      name: gin's name for it; None is its own.
      per_member: whether members of a population may differ in every parameter. They may where
        the first one is `base`: a method and its initializer are a member's own.
    """
    name = str(name or function.__name__)
    flat = flattened(function, name)
    _registered.add(name, flat)
    if per_member or next(iter(_registered.parameters[name]), None) == "base":
        _of_members.add(name)
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
    _functions[name] = filled_in
    return filled_in


def require(function: Any) -> None:
    """Checks that all parameters of what `register` returned have a value, without calling it.

    Raises:
      UserError: some have none; it says which gin file is missing.
    """
    if missing := list(_not_set(function.__name__)):
        raise _nothing_sets(missing)


def _nothing_sets(missing: Sequence[str]) -> UserError:
    hints = dict.fromkeys(_SET_BY.get(name, _ELSE_SET_BY) for name in missing)
    return UserError(f"Nothing sets {', '.join(missing)}: add {', and '.join(hints)}.")


register_per_member = functools.partial(register, per_member=True)


def names() -> list[str]:
    """Returns what is registered."""
    return list(_registered.parameters)


def functions() -> dict[str, Any]:
    """Returns what is registered, by name, as `register` returned it."""
    return dict(_functions)


def signature(name: str) -> list[inspect.Parameter]:
    """Returns the parameters of what is registered under a name, with their marks."""
    return list(_registered.parameters[name].values())


def parameters_of(name: str) -> list[str]:
    """Returns the parameters of what is registered under a name."""
    return list(_registered.parameters.get(name, ()))


def configurables_with(parameter: str) -> list[str]:
    """Returns the configurables that have a parameter of this name."""
    return [name for name, known in _registered.parameters.items() if parameter in known]


def mark(parameter: str) -> Mark:
    """Returns what a parameter is to a run; gin may have put a scope or a module before its name.

    What isn't registered here is a user's own, and part of the run's identity.
    """
    own = _registered.mark(parameter)
    section, _ = split(parameter)
    return dataclasses.replace(own, per_member=own.per_member or section in _of_members)


def default_of(parameter: str) -> Any:
    """Returns a parameter's default, or `inspect.Parameter.empty`."""
    return _registered.default_of(parameter)


def _not_set(name: str) -> Iterator[str]:
    """Yields the parameters without a default for which gin has no value."""
    for parameter in _registered.parameters[name].values():
        full = f"{name}.{parameter.name}"
        if parameter.default is parameter.empty:
            try:
                gin.query_parameter(full)
            except ValueError:
                yield full
