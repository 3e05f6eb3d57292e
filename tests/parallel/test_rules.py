"""Every model over every mesh, by shapes alone: what each device would hold."""

import itertools
import math

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from prompt_tuning import axes
from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import MODELS, T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_axes, parameter_shapes
from prompt_tuning.models.targets import projections, select_targets
from prompt_tuning.parallel.mesh import check_batch, make_mesh
from prompt_tuning.parallel.rules import RULES, Layout

TINYWORLD_SMALL = T5Config(
    name="tinyworld_small",
    vocab_size=1408,
    embed_dim=96,
    num_heads=4,
    head_dim=24,
    mlp_dim=192,
    num_encoder_layers=3,
    num_decoder_layers=3,
)
CONFIGS = {**MODELS, "tinyworld_small": TINYWORLD_SMALL}
MESHES = [(1, 8), (2, 4), (4, 2), (8, 1)]


def abstract_mesh(data: int, model: int):
    """A mesh of more devices than the tests have; shardings need no more than its shape."""
    return jax.sharding.AbstractMesh(
        (data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2
    )


def layout(data: int, model: int, fsdp: bool = False) -> Layout:
    return Layout(mesh=abstract_mesh(data, model), axes_of=parameter_axes, fsdp=fsdp)


def device_share(layout: Layout, shapes: dict[str, tuple[int, ...]]) -> float:
    """The share of the model that one device holds."""
    held = sum(
        math.prod(layout.sharding_of(name, shape).shard_shape(shape))
        for name, shape in shapes.items()
    )
    return held / sum(map(math.prod, shapes.values()))


def test_the_table_has_the_axes_of_the_glossary():
    glossary = {value for name, value in vars(axes).items() if name.isupper()}
    assert set(RULES) == glossary


@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_on_every_mesh(name):
    config = CONFIGS[name]
    shapes = parameter_shapes(config)
    for (data, model), fsdp in itertools.product(MESHES, (False, True)):
        share = device_share(layout(data, model, fsdp), shapes)
        ways = model * data if fsdp else model
        heads = select_targets(projections(config), ("query", "key"))
        if any(each.outputs[0] % model for each in heads):
            # Attention is whole on every device, along `model` at least.
            assert 1 / ways < share < 0.6, (data, model, fsdp)
        else:
            assert share == pytest.approx(1 / ways, rel=0.02), (data, model, fsdp)


def test_where_each_parameter_of_the_largest_goes():
    config = MODELS["t5_1_1_xxl"]
    specs = {
        name: layout(2, 4, fsdp=True).sharding_of(name, shape).spec
        for name, shape in parameter_shapes(config).items()
    }
    assert specs["token_embedder/embedding"] == PartitionSpec("model", "data")
    assert specs["decoder/logits_dense/kernel"] == PartitionSpec("data", "model")
    assert specs["encoder/relpos_bias/rel_embedding"] == PartitionSpec("model", None)
    assert specs["encoder/encoder_norm/scale"] == PartitionSpec(None)
    stack = "decoder/layers/"
    assert specs[f"{stack}self_attention/query/kernel"] == PartitionSpec(
        None, "data", "model", None
    )
    assert specs[f"{stack}encoder_decoder_attention/out/kernel"] == PartitionSpec(
        None, "model", None, "data"
    )
    assert specs[f"{stack}mlp/wo/kernel"] == PartitionSpec(None, "model", "data")
    assert specs[f"{stack}pre_mlp_layer_norm/scale"] == PartitionSpec(None, None)


def test_a_tree_gets_the_layout_of_its_names():
    params = abstract_params(MODELS["t5_small"])
    made = layout(4, 2)
    flat = flatten(made.abstract(params))
    for name, shape in parameter_shapes(MODELS["t5_small"]).items():
        assert flat[name].shape == shape
        assert flat[name].sharding == made.sharding_of(name, shape)


def test_weights_that_are_trained_lie_as_the_frozen_ones():
    """So do an optimizer's moments of their shape; all else is whole on every device."""
    params = abstract_params(TINYWORLD_SMALL)
    layout = Layout(mesh=abstract_mesh(2, 4), axes_of=parameter_axes)
    kernel, norm = "encoder/layers/mlp/wo/kernel", "encoder/encoder_norm/scale"
    weights = {name: flatten(params)[name] for name in (kernel, norm)}
    lora = jax.ShapeDtypeStruct((3, 192, 2), "float32")
    trained = {"params": {**weights, "encoder/mlp/wo/down": lora}}
    state = jax.eval_shape(lambda trained: (trained, optax.adam(0.1).init(trained)), trained)
    shardings = layout.trained_shardings(state, params)
    split, whole = PartitionSpec(None, "model", None), PartitionSpec()
    for tree in (shardings[0], shardings[1][0].mu, shardings[1][0].nu):
        assert tree["params"][kernel].spec == split
        assert tree["params"][norm].spec == PartitionSpec(None)
        assert tree["params"]["encoder/mlp/wo/down"].spec == whole
    assert shardings[1][0].count.spec == whole
    factored = jax.eval_shape(optax.adafactor(0.1, min_dim_size_to_factor=32).init, trained)
    found = jax.tree.leaves(layout.trained_shardings(factored, params))
    assert {sharding.spec for sharding in found} <= {whole, PartitionSpec(None)}


def test_what_cannot_be_split_is_told_once_an_axis():
    params = abstract_params(MODELS["t5_1_1_small"])
    assert layout(4, 2).unsplit(params) == []
    (line,) = layout(2, 4).unsplit(params)
    assert "heads (6) can't be split 4 ways" in line


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"model": 3}, "MODEL_PARALLEL is 3, and 8 devices can't be divided into groups of 3"),
        ({"model": 0}, "MODEL_PARALLEL is 0; it must be at least 1"),
        ({"model": 2, "data": 2}, "DATA_PARALLEL 2 x MODEL_PARALLEL 2 is 4 devices, but there are"),
    ],
)
def test_a_mesh_of_another_number_of_devices_is_refused(wanted, told):
    with pytest.raises(UserError, match=told) as error:
        make_mesh(**wanted, devices=jax.devices()[:1] * 8)
    assert "\n" not in str(error.value)


def test_a_mesh_of_what_there_is():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "model": 1}
    assert mesh.axis_types == (AxisType.Auto,) * 2
    assert np.asarray(mesh.devices).size == 1


def test_a_batch_has_to_be_shared_evenly():
    check_batch(8, abstract_mesh(4, 2))
    with pytest.raises(UserError, match="4 groups of 2 devices; set BATCH_SIZE to a multiple of 4"):
        check_batch(6, abstract_mesh(4, 2))
    with pytest.raises(UserError, match="among 8 devices"):
        check_batch(6, abstract_mesh(8, 1))
    with pytest.raises(UserError, match="multiple of 16"):
        check_batch(8, abstract_mesh(4, 2), accumulation_steps=4)
