"""Methods and initializers as users select them: options first, the frozen model later.

    @method
    def lora(base: FrozenModel, rank: int = 8) -> LoRA: ...

    chosen = lora(rank=4)     # a `Choice`: the options, without a model
    chosen(base)              # the `LoRA` for that model

A decorated function is registered by name: its options are set in gin files as `lora.rank`,
recorded in run folders and listed in docs/parameters.md, and files name its class by it.
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
    """The frozen model as methods see it, such as `prompt_tuning.recipes.frozen_base.Base`.

    Attributes:
      config: its `ModelConfig`.
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
        """Reads soft prompts of one length, trained for this model."""
        ...

    def load_adapter(self, path: str) -> Any:
        """Reads an `Adapter` and checks that it was trained for this model."""
        ...

    def count_tasks(self, mixture_or_task: Any) -> int:
        """Returns the number of tasks in a mixture; 1 for a task."""
        ...


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A function of the frozen model, with its options.

    Attributes:
      function: called with the model and the options.
      arguments: options by name, including defaults.
    """

    function: Callable[..., T]
    arguments: Mapping[str, Any]

    def __call__(self, base: FrozenModel) -> T:
        """Calls the function with a frozen model.

        Raises:
          UserError: an option doesn't fit the model.
        """
        return self.function(base, **self.arguments)


CHOICES: dict[str, Callable[..., Any]] = {}
"""Undecorated factory functions by name."""

METHODS: dict[str, type[Any]] = {}
"""Method classes by the name that files of trained parameters record."""

_watchers: list[Callable[[Callable[..., Any]], Any]] = []


def watch_choices(watcher: Callable[[Callable[..., Any]], Any]) -> None:
    """Calls `watcher` with each function in `CHOICES`, now and whenever one is added."""
    for function in CHOICES.values():
        watcher(function)
    _watchers.append(watcher)


def choice(function: Callable[Concatenate[B, P], T]) -> Callable[P, Choice[T]]:
    """Curries `f(base, **options)` into `f(**options) -> Choice`, called with `base` later."""
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
    """Registers `f(base, **options) -> MethodClass` as a method users can select; see `choice`.

    Args:
      function: annotated with the class it returns. Files name the class after the first
        function registered for it.
    """
    kind = inspect.signature(function, eval_str=True).return_annotation
    if kind not in METHODS.values():
        METHODS[function.__name__] = kind
    return choice(function)


def bound_arguments(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name, including defaults."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
