"""A tiny T5 with random weights, made without compiling anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5 import T5


@pytest.fixture(scope="session")
def model():
    return T5(
        T5Config(
            name="tiny",
            vocab_size=64,
            embed_dim=16,
            num_heads=2,
            head_dim=8,
            mlp_dim=24,
            num_encoder_layers=1,
            num_decoder_layers=1,
        )
    )


@pytest.fixture(scope="session")
def frozen(model):
    numbers = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "scale":
            return jnp.ones(leaf.shape)
        return jnp.asarray(numbers.normal(scale=0.3, size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(model.config))
