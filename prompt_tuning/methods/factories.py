"""Methods and initializers as users choose them: functions of the frozen model and of options.

    @method
    def lora(base: FrozenModel, rank: int = 8) -> LoRA: ...

    chosen = lora(rank=4)     # a `Choice`: options, and still no model
    chosen(base)              # the `LoRA` for that model

What is decorated is known everywhere by its name: its options are set in gin files as `lora.rank`,
written into run folders and listed in docs/parameters.md, and its class is made again from a file.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32

from prompt_tuning.methods.base import Method

P = ParamSpec("P")
T = TypeVar("T")
B = TypeVar("B", contravariant=True)


@runtime_checkable
class FrozenModel(Protocol):
    """What a method can ask of the frozen model; `prompt_tuning.recipes.frozen_base.Base` is one.

    Attributes:
      config: its `T5Config`.
      params: its parameters, or only their shapes and dtypes.
      shapes: the shapes of its parameters by name, "/"-joined.
    """

    @property
    def config(self) -> Any: ...
    @property
    def params(self) -> Any: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def source_prompts(self, paths: Sequence[str]) -> Float32[np.ndarray, "sources prompt embed"]:
        """Returns the soft prompts of files, all of one length, trained for this model."""
        ...

    def load_adapter(self, path: str) -> Any:
        """Returns the `Adapter` of a file, checked to be this model's."""
        ...

    def count_tasks(self, mixture_or_task: Any) -> int:
        """Returns how many tasks a mixture has; 1 for a task."""
        ...


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A function of the frozen model, with its options.

    Attributes:
      function: called with the model and the options.
      arguments: options by name, defaults included.
    """

    function: Callable[..., T]
    arguments: Mapping[str, Any]

    def __call__(self, base: FrozenModel) -> T:
        """Returns what was chosen, for a frozen model.

        Raises:
          UserError: an option doesn't fit the model.
        """
        return self.function(base, **self.arguments)


CHOICES: dict[str, Callable[..., Any]] = {}
"""Every function of the frozen model and of options, by name, as it was written."""

METHODS: dict[str, type[Any]] = {}
"""The class of every method that a file of trained parameters can be of, by name."""

_watchers: list[Callable[[Callable[..., Any]], Any]] = []


def watch_choices(watcher: Callable[[Callable[..., Any]], Any]) -> None:
    """Calls `watcher` with each function in `CHOICES`, and with each that is added later."""
    for function in CHOICES.values():
        watcher(function)
    _watchers.append(watcher)


def choice(function: Callable[Concatenate[B, P], T]) -> Callable[P, Choice[T]]:
    """Makes a function of the frozen model, `base`, and of options one of the options alone."""
    signature = inspect.signature(function)
    options = signature.replace(parameters=list(signature.parameters.values())[1:])

    @functools.wraps(function)
    def choose(*args: P.args, **kwargs: P.kwargs) -> Choice[T]:
        return Choice(function, bound_arguments(options, *args, **kwargs))

    choose.__signature__ = options  # pyright: ignore[reportAttributeAccessIssue]
    CHOICES[function.__name__] = function
    for watcher in _watchers:
        watcher(function)
    return choose


def method(function: Callable[Concatenate[FrozenModel, P], Any]) -> Callable[P, Choice[Method]]:
    """Makes a function of the frozen model and of options a method that users can choose.

    Args:
      function: its return annotation is the method's class. Files name the class by the first
        function that returns it.
    """
    kind = inspect.signature(function, eval_str=True).return_annotation
    if kind not in METHODS.values():
        METHODS[function.__name__] = kind
    return choice(function)


def bound_arguments(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name, defaults included."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
