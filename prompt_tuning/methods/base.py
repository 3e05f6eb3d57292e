"""What a parameter-efficient method is: its own parameters, and how they enter the frozen model.

A method knows no layer of the model and the model knows no method; they meet in
`prompt_tuning.models.injection`:

    trained = method.init(key, batch)          # all that is optimized and saved
    injection = method.apply(trained, batch)   # what the frozen model is given
    variables, injection = injected(frozen, injection)
    logits = model.apply(variables, batch, injection)

A method is a Flax module derived from `Method` whose `__call__(batch)` returns an `Injection`;
`trained` is its variables, `{"params": {...}}`. Its attributes are all that it takes to make it
again: numbers, strings, tuples of them, and `targets.Target`s, which have the sizes of the modules
it reaches into. Those whose names end with "initializer" are functions that give first values and
have a default; they are neither written down nor compared. The methods themselves are one file each
beside this one, by name in `registry.py`; initial values of prompts are in `initializers.py`.
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
    """Turns a few trained parameters into an injection."""

    def init(self, key: PRNGKeyArray, batch: Batch) -> Trained:
        """Returns the initial values of the trainable parameters."""
        ...

    def apply(self, trained: Trained, batch: Batch) -> Injection:
        """Returns what these parameters add to the frozen model for a batch; differentiable."""
        ...

    def fold(self, trained: Trained) -> tuple["Method", Trained]:
        """Returns the simplest method with the same injection, and its parameters.

        What only helps in training, such as a network that makes a prompt, is computed once and
        for all. This is what is saved, exported and served.
        """
        ...


class MethodModule(nn.Module):
    """What methods written in Flax have in common."""

    def __init_subclass__(cls, **options: Any) -> None:
        if "fold" in vars(cls):
            # Flax would take the module that `fold` makes for a part of this one.
            cls.fold = nn.nowrap(cls.fold)
        super().__init_subclass__(**options)

    @nn.nowrap
    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns what `Method.fold` does: this method itself, if nothing can be simplified."""
        return self, trained  # pyright: ignore[reportReturnType]


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """A method together with those of its variables that aren't trained, such as source prompts.

    `bind` makes it; two are equal if methods and constants are.
    """

    method: Any
    constants: Mapping[str, Any]
    digest: str

    def init(self, key: PRNGKeyArray, batch: Batch) -> Trained:
        """Returns the initial values of the trainable parameters, without the constants."""
        return {"params": self.method.init(key, batch)["params"]}

    def apply(self, trained: Trained, batch: Batch) -> Injection:
        """Returns the injection of trained parameters and constants."""
        return self.method.apply({**self.constants, **trained}, batch)

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the simplest method with the same injection, and its variables."""
        return self.method.fold({**self.constants, **trained})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, str]:
        return self.method, self.digest


def bind(method: Method, variables: Trained) -> tuple[Method, Trained]:
    """Returns a method and its variables with what isn't trained taken out of them.

    Of a method's variables the collection "params" is trained; all others are constants.
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
