"""What a parameter-efficient method is: its own numbers, and how they enter the frozen model.

A method knows no layer of the model and the model knows no method; they meet in
`prompt_tuning.models.injection`:

    trained = method.init(key, batch)          # the only numbers that are optimised and saved
    injection = method.apply(trained, batch)   # what the frozen model is given
    logits = model.apply({"params": frozen}, batch, injection)

Any `flax.linen.Module` whose `__call__(batch)` returns an `Injection` is a method: Flax gives
it `init` and `apply`, and `trained` is its variables, `{"params": {...}}`. The methods
themselves are one file each beside this one; initial values are in `initializers.py`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, PRNGKeyArray

from prompt_tuning.models.injection import Injection

Trained = Any
"""A pytree of a method's trainable arrays."""

Batch = Mapping[str, Array | np.ndarray]
"""A batch of token ids under SeqIO's feature names; see `prompt_tuning.models.t5`."""


@runtime_checkable
class Method(Protocol):
    """Something that turns a few trained numbers into an injection."""

    def init(self, key: PRNGKeyArray, batch: Batch) -> Trained:
        """Returns the initial values of the numbers this method trains."""
        ...

    def apply(self, trained: Trained, batch: Batch) -> Injection:
        """Returns what these numbers add to the frozen model for this batch; differentiable."""
        ...
