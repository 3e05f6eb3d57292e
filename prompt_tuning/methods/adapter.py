"""Bottleneck adapters: small networks after the blocks of each layer (Houlsby et al., 2019).

A block's output h, before the residual is added, becomes (section 2.1)

    h + activation(h W_down + b_down) W_up + b_up

The paper puts one after every attention and feed-forward block; Pfeiffer et al. (2021) after the
feed-forward block only. W_down is initialized from a normal distribution with standard deviation
0.01, truncated at two standard deviations, as in the paper. The paper initializes W_up in the same
way; here it is zero, so the model is initially unchanged. The norms, which the paper trains too,
stay frozen, and T5 needs no new head. Adapters are nonlinear, so they can't be merged into the
frozen weights.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import UserError, at_least, did_you_mean
from prompt_tuning.methods.base import Batch, MethodModule
from prompt_tuning.methods.deep_prompt import ATTENTION
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.models.injection import Bottleneck, Injection
from prompt_tuning.models.targets import Target, blocks, select_targets

PLACEMENTS: Mapping[str, Sequence[str]] = {"houlsby": (*ATTENTION, "mlp"), "pfeiffer": ("mlp",)}
"""The blocks followed by an adapter, by placement."""

_INITIAL_STDDEV = 0.01


class BottleneckAdapter(MethodModule):
    """A bottleneck of `width` after the target blocks of every layer.

    For each block, the trainable parameters are "BLOCK/down" [layer, embed, width],
    "BLOCK/down_bias" [layer, width], "BLOCK/up" [layer, width, embed] and "BLOCK/up_bias"
    [layer, embed]: layers * (2 * width * embed + width + embed) values, as the paper counts.

    Attributes:
      targets: the blocks; see `targets.blocks`.
      width: size of the hidden layer, at least 1 (the paper: 8, 64 or 256).
      activation: a name in `slots.ACTIVATIONS`.

    Raises:
      UserError: the width isn't positive, or the activation is unknown.
    """

    targets: tuple[Target, ...]
    width: int = 64
    activation: str = "gelu"

    def __post_init__(self):
        at_least(1, {"adapter.width": self.width}, " (the paper: 8 to 256)")
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of these networks, the same for every batch."""
        del batch
        return Injection(bottlenecks={target.name: self._of(target) for target in self.targets})

    def _of(self, target: Target) -> Bottleneck:
        (embed_dim,) = target.inputs

        def param(part, initializer, *shape):
            shape = (target.layers, *shape)
            # [layer, 1 (batch), ...]
            return self.param(f"{target.name}/{part}", initializer, shape, jnp.float32)[:, None]

        # The stddev is that before truncation (0.0088 after), as in PyTorch and TensorFlow.
        cut = nn.initializers.truncated_normal(_INITIAL_STDDEV)
        zeros = nn.initializers.zeros
        return Bottleneck(
            down=param("down", cut, embed_dim, self.width),
            down_bias=param("down_bias", zeros, self.width),
            up=param("up", zeros, self.width, embed_dim),
            up_bias=param("up_bias", zeros, embed_dim),
            activation=self.activation,
        )


@method
def adapter(
    base: FrozenModel, width: int = 64, placement: str = "houlsby", activation: str = "gelu"
) -> BottleneckAdapter:
    """Bottleneck adapters placed as in `PLACEMENTS`.

    Raises:
      UserError: the placement is unknown.
    """
    if placement not in PLACEMENTS:
        raise UserError(
            f"adapter.placement is '{placement}'; expected {' or '.join(PLACEMENTS)}."
            f"{did_you_mean(placement, PLACEMENTS)}"
        )
    targets = select_targets(blocks(base.config), PLACEMENTS[placement])
    return BottleneckAdapter(targets=targets, width=width, activation=activation)
