"""The families of frozen models: the config and the module of each.

Everything outside a family's own files, and outside the readers of its checkpoints, uses what
`ModelConfig` (config.py) and `FrozenModel` (encoder_decoder.py) have.
"""

from collections.abc import Callable
from typing import Any

from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import ModelConfig, T5Config
from prompt_tuning.models.decoder_only import DecoderOnly, DecoderOnlyConfig
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma import T5Gemma, T5GemmaConfig

MODULES: dict[type[ModelConfig], Callable[[Any, Compute, ActivationLayout], Any]] = {
    T5Config: T5,
    T5GemmaConfig: T5Gemma,
    DecoderOnlyConfig: DecoderOnly,
}
"""The Flax module of each kind of config."""


def model_of(
    config: ModelConfig, compute: Compute = Compute(), layout: ActivationLayout = ONE_DEVICE
) -> FrozenModel:
    """Returns the module of an architecture.

    Args:
      config: the architecture.
      compute: numerics and memory options.
      layout: a `parallel.rules.Layout` if the model is on several devices.
    """
    return MODULES[type(config)](config, compute, layout)
