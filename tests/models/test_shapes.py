"""The told shapes are those of the model itself, name for name and in its order."""

import dataclasses

import pytest

from prompt_tuning.checkpoints.weights import flatten
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.shapes import parameter_shapes
from prompt_tuning.models.t5 import abstract_params

V1_1 = T5Config(
    name="test",
    vocab_size=50,
    embed_dim=16,
    num_heads=2,
    head_dim=6,
    mlp_dim=24,
    num_encoder_layers=3,
    num_decoder_layers=2,
)


@pytest.mark.parametrize("old", [False, True], ids=["v1.1", "v1.0"])
def test_shapes_are_those_of_the_model(old):
    config = dataclasses.replace(V1_1, gated_mlp=not old, tie_embeddings=old)
    found = {name: leaf.shape for name, leaf in flatten(abstract_params(config)).items()}
    assert list(parameter_shapes(config).items()) == list(found.items())
