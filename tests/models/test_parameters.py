"""The table of parameters is that of the model itself, name for name and in its order."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from small_configs import SMALL as V1_1

from prompt_tuning.axes import BUCKETS, EMBED, HEAD_DIM, HEADS, LAYER, MLP, VOCAB
from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_axes, parameter_shapes
from prompt_tuning.models.t5 import T5


@pytest.mark.parametrize("old", [False, True], ids=["v1.1", "v1.0"])
def test_shapes_are_those_of_the_model(old):
    config = dataclasses.replace(V1_1, gated_mlp=not old, tie_embeddings=old)
    tokens = jnp.ones((1, 1), jnp.int32)
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
    made: Any = jax.eval_shape(T5(config).init, jax.random.key(0), batch)
    assert made["params"] == abstract_params(config)
    found = {name: leaf.shape for name, leaf in flatten(made["params"]).items()}
    assert list(parameter_shapes(config).items()) == list(found.items())


def test_axes_have_the_sizes_that_they_are_named_for():
    sizes = {EMBED: 16, HEADS: 2, HEAD_DIM: 6, MLP: 24, VOCAB: 50, BUCKETS: 32, None: 16}
    for each in V1_1.parameters():
        layers = {LAYER: 3 if each.name.startswith("encoder") else 2}
        assert each.shape == tuple((sizes | layers)[axis] for axis in each.axes), each.name
        assert each.axes == parameter_axes(each.name)
