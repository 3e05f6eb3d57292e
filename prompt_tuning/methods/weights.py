"""Frozen parameters trained after all: all of them, or those that a pattern names.

All of them is model tuning, which the paper measures prompts against (Lester et al., 2021,
section 3), on one task or on a mixture. The scales of the norms alone are what is left of BitFit
(Ben Zaken et al., 2022) for T5, which has no biases.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Names of parameters of the model, "/"-joined, with their shapes."""

Start = Callable[[str, tuple[int, ...]], Any]
"""Gives the frozen value of a parameter by its name and shape."""


def _zeros(name: str, shape: tuple[int, ...]) -> Array:
    """A place for values, such as those of a file; no model to start from."""
    del name
    return jnp.zeros(shape)


class Weights(MethodModule):
    """Values of some of the model's parameters, in the place of the frozen ones.

    The trainable parameters are, by name, an array for each of them, in float32 whatever the frozen
    model's dtype. They can't differ within a batch.

    Attributes:
      shapes: which, and their shapes.
      initializer: gives the value that each starts from: the frozen one.
    """

    shapes: Shapes
    initializer: Start = _zeros

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these weights; it is the same for every batch."""
        del batch

        def param(name: str, shape: tuple[int, ...]) -> Array:
            return self.param(
                name, lambda _: jnp.asarray(self.initializer(name, shape), jnp.float32)
            )

        return Injection(weights={name: param(name, shape) for name, shape in self.shapes})


def select_weights(shapes: Mapping[str, tuple[int, ...]], patterns: Sequence[str]) -> Shapes:
    """Returns the parameters whose names fit any of `patterns`, such as "*norm/scale".

    Raises:
      UserError: a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shapes):
            raise UserError(
                f"No parameter of the model is called '{pattern}'; a * stands for anything, as in "
                f"'*norm/scale' or 'decoder/*'.{did_you_mean(pattern, shapes)}"
            )
    return tuple(
        (name, tuple(shape))
        for name, shape in shapes.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    )


@method
def weights(base: FrozenModel, patterns: Sequence[str] = ("*",)) -> Weights:
    """The model's parameters whose names match any of the patterns: model tuning, or a part."""
    leaves = {
        "/".join(str(getattr(key, "key", key)) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(base.params)
    }

    def start(name: str, shape: tuple[int, ...]) -> Any:
        # `prompt-tuning plan` has no values, only shapes.
        values = leaves[name]
        return jnp.zeros(shape) if isinstance(values, jax.ShapeDtypeStruct) else values

    return Weights(shapes=select_weights(base.shapes, patterns), initializer=start)
