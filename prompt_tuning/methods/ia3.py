"""IA3: learned scales of keys, values and hidden layers (Liu et al., 2022, section 3.3).

With trained vectors l_k, l_v and l_ff in every layer, and * element by element,

    attention: softmax(Q (l_k * K)^T) (l_v * V)     feed-forward block: (l_ff * act(x W_1)) W_2

All are initialized to one, so the model is initially unchanged. After training they can be merged
into the kernels (`prompt_tuning.models.merging`).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.targets import Target, scalable, select_targets


class IA3(MethodModule):
    """A scale for each output feature of the target modules, in every layer.

    For each module, the trainable parameter is an array [layer, *outputs]. All modules together
    have encoder layers * (2 * heads * head_dim + mlp) + decoder layers * (4 * heads * head_dim
    + mlp) values.

    Attributes:
      targets: the modules; see `targets.scalable`.
    """

    targets: tuple[Target, ...]

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these scales, the same for every batch."""
        del batch
        scales = {
            target.name: self.param(
                target.name, nn.initializers.ones, (target.layers, *target.outputs), jnp.float32
            )[:, None]  # [layer, 1 (batch), *outputs]
            for target in self.targets
        }
        return Injection(scales=scales)


@method
def ia3(base: FrozenModel, modules: Sequence[str] = ("key", "value", "hidden")) -> IA3:
    """IA3 of the given modules."""
    return IA3(targets=select_targets(scalable(base.config), modules))
