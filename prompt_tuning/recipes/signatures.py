"""Options of functions and dataclasses: names, defaults, and effects on a run's identity."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.settings import Mark, mark_of, unmarked

PARAMETERS: dict[str, Mapping[str, inspect.Parameter]] = {}
"""Parameters by function name; gin's name for a parameter is `function.parameter`."""

_per_member: set[str] = set()


def add(name: str, function: Callable[..., Any], *, per_member: bool = False) -> None:
    """Registers a function, already `flattened` if it has `Fields` parameters.

    Args:
      name: gin's name for it.
      function: its parameters, or fields, may have marks (`settings.py`).
      per_member: whether members of a population may differ in every parameter. Always true if the
        first parameter is `base`: members may have different methods and initializers.
    """
    PARAMETERS[name] = dict(inspect.signature(function).parameters)
    if per_member or next(iter(PARAMETERS[name]), None) == "base":
        _per_member.add(name)


def mark(parameter: str) -> Mark:
    """Returns a parameter's mark; its name may have gin's scope or module prefix.

    Unknown parameters are a user's, and part of the run's identity.
    """
    section, name = _split(parameter)
    found = PARAMETERS.get(section, {}).get(name)
    own = Mark() if found is None else mark_of(found.annotation)
    return dataclasses.replace(own, per_member=own.per_member or section in _per_member)


def default_of(parameter: str) -> Any:
    """Returns a parameter's default, or `inspect.Parameter.empty`."""
    section, name = _split(parameter)
    found = PARAMETERS.get(section, {}).get(name)
    return inspect.Parameter.empty if found is None else found.default


def _split(parameter: str) -> tuple[str, str]:
    """Splits a parameter into function and name, without scope and module."""
    section, _, name = parameter.rpartition(".")
    return section.replace("/", ".").rpartition(".")[2], name


def flattened(function: Any, name: str) -> Callable[..., Any]:
    """Returns the function with its `Fields` parameters replaced by their fields."""
    parameters = inspect.signature(function).parameters
    nested = {
        each.name: unmarked(each.annotation)
        for each in parameters.values()
        if mark_of(each.annotation).fields
    }
    if not nested:
        return function
    own = [each for each in parameters.values() if each.name not in nested]
    taken = {each.name for each in own}
    inner = {
        outer: [
            each for each in inspect.signature(kind).parameters.values() if each.name not in taken
        ]
        for outer, kind in nested.items()
    }

    def fill(*args: Any, **kwargs: Any) -> Any:
        for outer, fields in inner.items():
            values = {each.name: kwargs.pop(each.name) for each in fields if each.name in kwargs}
            kwargs.setdefault(outer, nested[outer](**values))
        return function(*args, **kwargs)

    fill.__name__ = fill.__qualname__ = name
    fill.__module__, fill.__doc__ = function.__module__, function.__doc__
    flat = [*own, *(each for fields in inner.values() for each in fields)]
    fill.__signature__ = inspect.Signature(sorted(flat, key=lambda each: each.kind))  # pyright: ignore[reportFunctionMemberAccess]
    return fill
