"""Training the model's own parameters: all of them, or those that match a pattern.

Training all is model tuning, the paper's baseline (Lester et al., 2021, section 3), on one task or
on a mixture. Training only the scales of the norms is what remains of BitFit (Ben Zaken et al.,
2022) for T5, which has no biases.
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
"""Names of model parameters, "/"-joined, with their shapes."""

Start = Callable[[str, tuple[int, ...]], Any]
"""A function from a parameter's name and shape to its frozen value."""


def _zeros(name: str, shape: tuple[int, ...]) -> Array:
    """Returns zeros, to be replaced by values such as those of a file."""
    del name
    return jnp.zeros(shape)


class Weights(MethodModule):
    """Values that replace some of the model's frozen parameters.

    The trainable parameters are an array for each of them, by name, in float32 for any dtype of
    the frozen model. They can't differ within a batch.

    Attributes:
      shapes: names and shapes of the parameters to train.
      initializer: returns the initial value of each: the frozen one.
    """

    shapes: Shapes
    initializer: Start = _zeros

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these weights, the same for every batch."""
        del batch

        def param(name: str, shape: tuple[int, ...]) -> Array:
            return self.param(
                name, lambda _: jnp.asarray(self.initializer(name, shape), jnp.float32)
            )

        return Injection(weights={name: param(name, shape) for name, shape in self.shapes})


def select_weights(shapes: Mapping[str, tuple[int, ...]], patterns: Sequence[str]) -> Shapes:
    """Returns the parameters whose names match any of `patterns`, such as "*norm/scale".

    Raises:
      UserError: a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in shapes):
            raise UserError(
                f"No parameter of the model matches '{pattern}'; * matches any text, as in "
                f"'*norm/scale' or 'decoder/*'.{did_you_mean(pattern, shapes)}"
            )
    return tuple(
        (name, tuple(shape))
        for name, shape in shapes.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    )


@method
def weights(base: FrozenModel, patterns: Sequence[str] = ("*",)) -> Weights:
    """The model's parameters that match any of the patterns (all: model tuning)."""
    leaves = {
        "/".join(str(getattr(key, "key", key)) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(base.params)
    }

    def start(name: str, shape: tuple[int, ...]) -> Any:
        # `prompt-tuning plan` has no values, only shapes.
        values = leaves[name]
        return jnp.zeros(shape) if isinstance(values, jax.ShapeDtypeStruct) else values

    return Weights(shapes=select_weights(base.shapes, patterns), initializer=start)
