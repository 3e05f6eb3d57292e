"""Methods, initializers, optimizers and schedules as users choose them; they remember how.

    pt.soft_prompt(length=20, initializer=pt.class_label(["True", "False"]))   # a choice
    pt.adafactor(0.3)                                                          # an optimizer

A method and its initializer need the frozen model, so what is chosen is a function of it, `Choice`,
that `train` calls. Each function here has the parameters and the meaning of the one that it wraps,
but for `base`. What was chosen is written into the run's folder by the same names.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from prompt_tuning.recipes import initializers, layer_methods, prompt_methods, user_tasks
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference
from prompt_tuning.training import optimizers

P = ParamSpec("P")
T = TypeVar("T")

_MADE_BY = "_made_by"


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A function of the frozen model, with its other arguments.

    Attributes:
      function: called with the model and the arguments.
      arguments: by name, defaults filled in.
    """

    function: Callable[..., T]
    arguments: Mapping[str, Any]

    def __call__(self, base: Base) -> T:
        """Returns what was chosen, for a frozen model.

        Raises:
          UserError: an argument doesn't fit the model.
        """
        return self.function(base, **self.arguments)


@dataclass(frozen=True)
class _Made:
    """How a value was made that is made at once."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]


def of_base(function: Callable[Concatenate[Base, P], T]) -> Callable[P, Choice[T]]:
    """Returns a function of the other arguments, which gives a `Choice`."""
    signature = inspect.signature(function)
    own = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(function)
    def choose(*args: P.args, **kwargs: P.kwargs) -> Choice[T]:
        return Choice(function, _bound(own, *args, **kwargs))

    choose.__signature__ = own  # pyright: ignore[reportAttributeAccessIssue]
    return choose


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Returns the same function, whose results remember its name and its arguments."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> T:
        made = function(*args, **kwargs)
        # Some of what is made is frozen.
        object.__setattr__(made, _MADE_BY, _Made(function, _bound(signature, *args, **kwargs)))
        return made

    return make


def _bound(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def settings_of(name: str, value: Any) -> dict[str, Any]:
    """Returns a setting, and those of what it was made by, under gin's names.

    Args:
      name: the setting's.
      value: a choice, what a `remembered` function returned, or any other value.
    """
    if isinstance(value, Choice):
        made, reference = value, "@{}"
    elif isinstance(made := getattr(value, _MADE_BY, None), _Made):
        reference = "@{}()"
    else:
        return {name: value}
    called = made.function.__name__
    found = {name: Reference(reference.format(called))}
    for parameter, argument in made.arguments.items():
        found |= settings_of(f"{called}.{parameter}", argument)
    return found


soft_prompt = of_base(prompt_methods.soft_prompt)
p_tuning = of_base(prompt_methods.p_tuning)
residual_prompt = of_base(prompt_methods.residual_prompt)
mixed_prompt = of_base(prompt_methods.mixed_prompt)
attention_mixed_prompt = of_base(prompt_methods.attention_mixed_prompt)
multitask_prompt = of_base(prompt_methods.multitask_prompt)
adapted_multitask_prompt = of_base(prompt_methods.adapted_multitask_prompt)
prefix = of_base(layer_methods.prefix)
deep_prompt = of_base(layer_methods.deep_prompt)
lora = of_base(layer_methods.lora)
ia3 = of_base(layer_methods.ia3)
adapter = of_base(layer_methods.adapter)
weights = of_base(layer_methods.weights)

random_uniform = of_base(initializers.random_uniform)
sampled_vocabulary = of_base(initializers.sampled_vocabulary)
class_label = of_base(initializers.class_label)
from_string = of_base(initializers.from_string)
from_file = of_base(initializers.from_file)
most_similar = of_base(initializers.most_similar)

adafactor = remembered(optimizers.adafactor)
adamw = remembered(optimizers.adamw)
constant = remembered(optimizers.constant)
linear_warmup = remembered(optimizers.linear_warmup)
rsqrt_decay = remembered(optimizers.rsqrt_decay)
cosine_decay = remembered(optimizers.cosine_decay)

user_files = remembered(user_tasks.user_files)
