"""The parameters of a frozen model and a method in T5X's tree, without T5X."""

import jax
import numpy as np
import pytest
from flax import serialization
from flax.traverse_util import flatten_dict

from prompt_tuning import load, lora, prefix, random_uniform, soft_prompt
from prompt_tuning.checkpoints.adapters.t5x_prompts import VARIABLE, load_t5x_prompt
from prompt_tuning.checkpoints.frozen.layouts import layer_shapes
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.contrib.t5x.parameters import (
    frozen_from_t5x,
    frozen_to_t5x,
    initial,
    is_trained,
    trained_from_t5x,
    trained_to_t5x,
    with_axes,
)

PROMPT = soft_prompt(length=3, initializer=random_uniform())
METHODS = {"soft_prompt": PROMPT, "prefix": prefix(length=3), "lora": lora(rank=2)}


@pytest.fixture(scope="module")
def base():
    return load("tinyworld_nano", "tinyworld")


def test_frozen_parameters_return_from_the_names_and_shapes_of_published_checkpoints(base):
    tree = frozen_to_t5x(base.params, base.config)
    flat = flatten_dict(tree, sep="/")
    assert {name: leaf.shape for name, leaf in flat.items()} == layer_shapes(base.config)
    jax.tree.map(np.testing.assert_array_equal, frozen_from_t5x(tree, base.config), base.params)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_parameters_return_and_alone_are_trained(base, name):
    _, trained = initial(METHODS[name], base)
    tree = trained_to_t5x(trained)
    names = set(flatten_dict(tree, sep="/"))
    assert all(map(is_trained, names)) and not any(map(is_trained, layer_shapes(base.config)))
    assert (names == {VARIABLE}) == (name == "soft_prompt")
    jax.tree.map(np.testing.assert_array_equal, trained_from_t5x(tree, trained), trained)


def test_axes_of_heads_and_widths_are_t5x_s(base):
    flat = flatten_dict(frozen_to_t5x(base.params, base.config), sep="/")
    axes = flatten_dict(with_axes(flat, base.config)["params_axes"], sep="/")
    found = {name: tuple(each.names) for name, each in axes.items()}
    attention = "encoder/layers_0/attention"
    assert found[f"{attention}/query/kernel_axes"] == ("embed", "joined_kv")
    assert found[f"{attention}/out/kernel_axes"] == ("joined_kv", "embed")
    assert found["encoder/relpos_bias/rel_embedding_axes"] == ("heads", "relpos_buckets")
    assert found["encoder/encoder_norm/scale_axes"] == ("embed",)
    assert all(len(found[f"{name}_axes"]) == leaf.ndim for name, leaf in flat.items())


def test_the_frozen_model_and_the_prompt_are_read_from_one_checkpoint(base, tmp_path):
    _, trained = initial(PROMPT, base)
    flat = flatten_dict(frozen_to_t5x(base.params, base.config), sep="/")
    flat |= flatten_dict(trained_to_t5x(trained), sep="/")
    target = with_axes(flat, base.config)["params"]
    index = {"version": 3, "optimizer": {"target": jax.tree.map(np.asarray, target)}}
    (tmp_path / "checkpoint").write_bytes(serialization.msgpack_serialize(index))
    _, params = load_frozen(tmp_path, base.config)
    jax.tree.map(np.testing.assert_array_equal, params, base.params)
    np.testing.assert_array_equal(load_t5x_prompt(tmp_path), trained["params"]["prompt"])
