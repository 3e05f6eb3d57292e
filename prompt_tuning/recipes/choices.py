"""Choices that record how they were created, so that run folders can store it.

pt.soft_prompt(length=20, initializer=pt.class_label(["True", "False"]))   # a `Choice`
pt.adafactor(0.3)                                                          # an optimizer
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prompt_tuning.methods.factories import Choice, bound_arguments
from prompt_tuning.recipes import user_tasks
from prompt_tuning.recipes.gin_text import Reference
from prompt_tuning.training import optimizers

P = ParamSpec("P")
T = TypeVar("T")

_MADE_BY = "_made_by"


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Returns the same function, with results that record its name and arguments."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> T:
        made = function(*args, **kwargs)
        how = Choice(function, bound_arguments(signature, *args, **kwargs))
        object.__setattr__(made, _MADE_BY, how)  # some results are frozen dataclasses
        return made

    return make


def settings_of(name: str, value: Any) -> dict[str, Any]:
    """Returns a setting and those of the call that created its value, under gin's names.

    Args:
      name: the setting's name.
      value: a choice, a result of a `remembered` function, or any other value. A choice of a user's
        own function counts as any other value: the commands can't find the function.
    """
    if isinstance(value, Choice):
        made, reference = value, "@{}"
        if not made.function.__module__.startswith("prompt_tuning."):
            return {name: value}
    elif isinstance(made := getattr(value, _MADE_BY, None), Choice):
        reference = "@{}()"
    else:
        return {name: value}
    called = made.function.__name__
    found = {name: Reference(reference.format(called))}
    for parameter, argument in made.arguments.items():
        found |= settings_of(f"{called}.{parameter}", argument)
    return found


adafactor = remembered(optimizers.adafactor)
adamw = remembered(optimizers.adamw)
constant = remembered(optimizers.constant)
linear_warmup = remembered(optimizers.linear_warmup)
rsqrt_decay = remembered(optimizers.rsqrt_decay)
cosine_decay = remembered(optimizers.cosine_decay)

user_files = remembered(user_tasks.user_files)
