"""All methods by name, and their serialization.

A file of trained parameters records its method's name and attributes, from which `rebuild` creates
the same method. Initializers aren't recorded.
"""

import dataclasses
import importlib
import json
import pkgutil
from typing import Any

from prompt_tuning import methods
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.json_text import parse_json
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.factories import METHODS
from prompt_tuning.models.targets import Target

# Importing the files of this folder adds their methods to METHODS.
for _found in pkgutil.iter_modules(methods.__path__):
    importlib.import_module(f"{methods.__name__}.{_found.name}")

_NOT_WRITTEN = ("parent", "name")


def method_name(method: Method) -> str:
    """Returns the name of a method; raises ValueError if it isn't registered."""
    for name, kind in METHODS.items():
        if type(method) is kind:
            return name
    raise ValueError(f"No function decorated with @method returns a {type(method).__name__}.")


def describe(method: Method) -> str:
    """Returns a method's attributes, except initializers, as JSON."""
    fields = {
        field.name: getattr(method, field.name)
        for field in dataclasses.fields(method)  # pyright: ignore[reportArgumentType]
        if field.name not in _NOT_WRITTEN and not field.name.endswith("initializer")
    }
    return json.dumps(fields, default=dataclasses.asdict)


def rebuild(name: str, description: str) -> Method:
    """Creates the method of this name from the attributes that `describe` returned.

    Raises:
      UserError: the method is unknown, or these aren't its attributes.
    """
    if name not in METHODS:
        raise UserError(
            f"Unknown method '{name}'; expected {', '.join(METHODS)}.{did_you_mean(name, METHODS)}"
        )
    try:
        fields = {key: _value(value) for key, value in parse_json(description).items()}
        return METHODS[name](**fields)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"'{description[:100]}' doesn't describe the method {name} ({error})."
        ) from error


def _value(value: Any) -> Any:
    """Converts from JSON: lists to tuples, objects to targets."""
    if isinstance(value, list):
        return tuple(map(_value, value))
    if isinstance(value, dict):
        return Target(**{key: _value(entry) for key, entry in value.items()})
    return value
