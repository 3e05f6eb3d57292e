"""The interface of parameter-efficient methods: trainable parameters and their `Injection`.

Methods don't depend on the model's layers, nor the model on methods; they meet in
`prompt_tuning.models.injection`:

    trained = method.init(key, batch)          # all that is optimized and saved
    injection = method.apply(trained, batch)   # the input that the frozen model receives
    variables, injection = injected(frozen, injection)
    logits = model.apply(variables, batch, injection)

A method subclasses `MethodModule`, and its `__call__(batch)` returns an `Injection`. Anything with
`init`, `apply` and `fold` satisfies the `Method` protocol. `trained` is the module's variables,
`{"params": {...}}`. The attributes suffice to rebuild the method: numbers, strings, tuples of
these, and `targets.Target`s, which contain the sizes of the modules it modifies. Attributes whose
names end with "initializer" are functions with a default; they are neither saved nor compared.
Each method is one file of this folder, listed by name in `registry.py`; initial values of prompts
are in `initializers.py`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from prompt_tuning.models.injection import Injection

Trained = Any
"""A pytree of a method's trainable arrays."""

Batch = Mapping[str, Array | np.ndarray]
"""A batch of token ids under SeqIO's feature names; see `prompt_tuning.models.t5`."""


@runtime_checkable
class Method(Protocol):
    """Turns a small set of trainable parameters into an injection."""

    def init(self, key: PRNGKeyArray, batch: Batch) -> Trained:
        """Returns the initial values of the trainable parameters."""
        ...

    def apply(self, trained: Trained, batch: Batch) -> Injection:
        """Returns the injection for a batch, differentiable in `trained`."""
        ...

    def fold(self, trained: Trained) -> tuple["Method", Trained]:
        """Returns the equivalent inference-time method and its parameters.

        Anything needed only in training, such as a network that produces a prompt, is evaluated
        once. The result is what is saved, exported and served.
        """
        ...


class MethodModule(nn.Module):
    """Base class of methods written in Flax."""

    def __init_subclass__(cls, **options: Any) -> None:
        if "fold" in vars(cls):
            # Otherwise Flax would register the module that `fold` creates as a submodule.
            cls.fold = nn.nowrap(cls.fold)
        super().__init_subclass__(**options)

    @nn.nowrap
    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns this method itself; see `Method.fold`."""
        return self, trained  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """A method with its non-trainable variables, such as source prompts.

    Created by `bind`. Two are equal if their methods and constants are.
    """

    method: Any
    constants: Mapping[str, Any]
    digest: str

    def init(self, key: PRNGKeyArray, batch: Batch) -> Trained:
        """Returns the initial values of the trainable parameters, without the constants."""
        return {"params": self.method.init(key, batch)["params"]}

    def apply(self, trained: Trained, batch: Batch) -> Injection:
        """Returns the injection of the trained parameters and the constants."""
        return self.method.apply({**self.constants, **trained}, batch)

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the equivalent inference-time method and its variables."""
        return self.method.fold({**self.constants, **trained})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, str]:
        return self.method, self.digest


def bind(method: Method, variables: Trained) -> tuple[Method, Trained]:
    """Moves non-trainable variables into the method; returns the method and the trainable rest.

    The collection "params" of a method's variables is trained; all others are constants.
    """
    constants = {name: tree for name, tree in variables.items() if name != "params"}
    if not constants:
        return method, variables
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(constants):
        digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.asarray(leaf).tobytes())
    bound = Bound(method=method, constants=constants, digest=digest.hexdigest())
    return bound, {"params": variables["params"]}
