"""P-tuning: a soft prompt that a small network makes in training (Liu et al., 2021, section 3.2).

    P = MLP(BiLSTM(E))   or   P = MLP(E)

E is [prompt, embed]; E and the network are trained, and the network ties the virtual tokens
together, where prompt tuning trains each by itself. The sizes are those of PEFT's PromptEncoder.
The model sees nothing of the network, so that all of it folds into a `SoftPrompt` of P.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from prompt_tuning.errors import UserError, at_least
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import Initializer, MakeInitializer, random_uniform
from prompt_tuning.methods.prompt import check_prompt_length, fold_into_soft_prompt
from prompt_tuning.models.injection import Injection

ENCODERS = ("lstm", "mlp")
_LSTM_LAYERS = 2


class PTuning(MethodModule):
    """A prompt of `length` virtual tokens made by a network.

    "lstm" is two bidirectional layers, `hidden_dim` wide in each direction, then two dense layers
    with a ReLU between, 2 * hidden_dim and embed_dim wide. With a hidden_dim of embed_dim / 2 they
    are the paper's. "mlp" is three dense layers with ReLUs between, hidden_dim, hidden_dim and
    embed_dim wide.

    Attributes:
      length: number of virtual tokens.
      embed_dim: the frozen model's `embed_dim`.
      hidden_dim: width of the network.
      encoder: one of `ENCODERS`.
      initializer: gives the first values of E.

    Raises:
      UserError: the length or the width isn't positive, or there is no such encoder.
    """

    length: int
    embed_dim: int
    hidden_dim: int
    encoder: str = "lstm"
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        check_prompt_length(self.length)
        hint = " (the paper's is half of the model's width)"
        at_least(1, {"p_tuning.hidden_dim": self.hidden_dim}, hint)
        if self.encoder not in ENCODERS:
            raise UserError(f"P-tuning's encoder is '{self.encoder}'; expected lstm or mlp.")
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the injection of this prompt; it is the same for every batch."""
        del batch
        shape = (self.length, self.embed_dim)
        x: Any = self.param("embedding", self.initializer, shape, jnp.float32)[None]
        widths = (self.hidden_dim, self.hidden_dim)
        if self.encoder == "lstm":
            for layer in range(_LSTM_LAYERS):
                forward, backward = (
                    nn.RNN(nn.OptimizedLSTMCell(self.hidden_dim, name=f"lstm_{layer}_{direction}"))
                    for direction in ("forward", "backward")
                )
                x = nn.Bidirectional(forward, backward)(x)
            widths = (2 * self.hidden_dim,)
        for layer, width in enumerate(widths):
            x = nn.relu(nn.Dense(width, name=f"dense_{layer}")(x))
        return Injection(encoder_prompt=nn.Dense(self.embed_dim, name="out")(x))

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the prompt that the network has come to make, and no network."""
        return fold_into_soft_prompt(self, trained)


@method
def p_tuning(
    base: FrozenModel,
    length: int,
    initializer: MakeInitializer,
    encoder: str = "lstm",
    hidden_dim: int | None = None,
) -> PTuning:
    """P-tuning; `hidden_dim` None is half of the model's width, as in the paper."""
    embed_dim = base.config.embed_dim
    return PTuning(
        length=length,
        embed_dim=embed_dim,
        hidden_dim=embed_dim // 2 if hidden_dim is None else hidden_dim,
        encoder=encoder,
        initializer=initializer(base),
    )
