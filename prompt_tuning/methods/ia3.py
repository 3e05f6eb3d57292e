"""IA3: factors of keys, values and hidden layers (Liu et al., 2022, section 3.3).

With trained vectors l_k, l_v and l_ff in every layer, and * element by element,

    attention: softmax(Q (l_k * K)^T) (l_v * V)     feed-forward block: (l_ff * act(x W_1)) W_2

All start at one, so the model is at first as it was. Afterwards they can be multiplied into the
kernels: `prompt_tuning.models.merging`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.targets import Target, scalable, select_targets


class IA3(MethodModule):
    """A factor for each feature that some modules put out, in every layer.

    The trainable parameters are, by the name of each module, an array [layer, *outputs]: of all
    modules encoder layers * (2 * heads * head_dim + mlp) + decoder layers * (4 * heads * head_dim
    + mlp) parameters.

    Attributes:
      targets: the modules; see `targets.scalable`.
    """

    targets: tuple[Target, ...]

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these factors; it is the same for every batch."""
        del batch
        scales = {
            target.name: self.param(
                target.name, nn.initializers.ones, (target.layers, *target.outputs), jnp.float32
            )[:, None]
            for target in self.targets
        }
        return Injection(scales=scales)


@method
def ia3(base: FrozenModel, modules: Sequence[str] = ("key", "value", "hidden")) -> IA3:
    """IA3 of some modules."""
    return IA3(targets=select_targets(scalable(base.config), modules))
