"""P-tuning: a soft prompt computed by a small network in training (Liu et al., 2021, section 3.2).

    P = MLP(BiLSTM(E))   or   P = MLP(E)

E is [prompt, embed]; E and the network are trained. The network couples the virtual tokens, which
prompt tuning trains independently. The sizes are those of PEFT's PromptEncoder. The model sees only
P, so the method folds into a `SoftPrompt`.
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
    """A prompt of `length` virtual tokens computed by a network.

    "lstm" is two bidirectional layers of width `hidden_dim` per direction, then two dense layers of
    widths 2 * hidden_dim and embed_dim with a ReLU between them; the paper's network has
    hidden_dim = embed_dim / 2. "mlp" is three dense layers of widths hidden_dim, hidden_dim and
    embed_dim with ReLUs between them.

    Attributes:
      length: number of virtual tokens.
      embed_dim: the frozen model's `embed_dim`.
      hidden_dim: width of the network.
      encoder: one of `ENCODERS`.
      initializer: initializes E.

    Raises:
      UserError: the length or the width isn't positive, or the encoder is unknown.
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
        """Returns the injection of this prompt, the same for every batch."""
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
        """Returns the network's output as a `SoftPrompt`."""
        return fold_into_soft_prompt(self, trained)


@method
def p_tuning(
    base: FrozenModel,
    length: int,
    initializer: MakeInitializer,
    encoder: str = "lstm",
    hidden_dim: int | None = None,
) -> PTuning:
    """P-tuning; `hidden_dim` defaults to embed_dim / 2, as in the paper."""
    embed_dim = base.config.embed_dim
    return PTuning(
        length=length,
        embed_dim=embed_dim,
        hidden_dim=embed_dim // 2 if hidden_dim is None else hidden_dim,
        encoder=encoder,
        initializer=initializer(base),
    )
