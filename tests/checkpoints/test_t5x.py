"""T5X checkpoints, and parity with what the paper's own code computed on one of them."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from prompt_tuning.checkpoints.arrays.stored_arrays import array_in_memory
from prompt_tuning.checkpoints.frozen.layouts import infer_config, layer_shapes
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.t5x import stored_t5x
from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import MODELS
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.models.t5 import T5


@pytest.fixture(scope="module")
def zarr_folder(real_data):
    return real_data / "t5x_checkpoints" / "random_t5_1_1_tiny_zarr" / "checkpoint_3"


@pytest.fixture(scope="module")
def single_file(real_data):
    return real_data / "t5x_checkpoints" / "test_t5_tiny.checkpoint_0"


def test_reads_zarr_folders(zarr_folder):
    config, frozen = load_frozen(zarr_folder)
    shape = (config.embed_dim, config.num_heads, config.head_dim, config.mlp_dim)
    assert shape == (4, 2, 2, 8)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 2)
    assert config.gated_mlp
    assert not config.tie_embeddings
    assert count_parameters(frozen) == count_parameters(abstract_params(config))
    assert frozen["token_embedder"]["embedding"].std() > 0.1


def test_reads_a_single_file(single_file):
    config, frozen = load_frozen(single_file, dtype="bfloat16")
    assert (config.embed_dim, config.num_heads, config.head_dim) == (8, 4, 3)
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} == {jnp.dtype("bfloat16")}
    kernel = _leaf(single_file, "encoder/layers_1/attention/key/kernel").reshape(8, 4, 3)
    loaded = frozen["encoder"]["layers"]["attention"]["key"]["kernel"][1]
    np.testing.assert_array_equal(loaded, jnp.asarray(kernel, jnp.bfloat16))


def test_computes_what_the_papers_code_computed(real_data, zarr_folder, record_property):
    golden = np.load(real_data / "golden" / "original_code_tiny.npz", allow_pickle=False)
    config, frozen = load_frozen(zarr_folder)
    config = dataclasses.replace(config, relative_attention_max_distance=8)
    batch = {
        name: jnp.asarray(golden[name]) for name in ("encoder_input_tokens", "decoder_input_tokens")
    }
    targets = jnp.asarray(golden["decoder_target_tokens"])
    real = golden["decoder_target_tokens"] > 0

    @jax.jit
    def loss(prompt):
        injection = Injection(encoder_prompt=prompt[None])
        logits = T5(config).apply({"params": frozen}, batch, injection)
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        target = jnp.take_along_axis(logits, targets[:, :, None], axis=-1)[:, :, 0]
        losses = normalizer - target + 1e-4 * normalizer**2
        return jnp.sum(losses * real), (logits, normalizer)

    (summed, (logits, normalizer)), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(golden["prompt"])
    )
    errors = {
        "logits": _relative(logits[..., golden["logit_columns"]][real], golden["logits"][real]),
        "log normalizers": _relative(normalizer[real], golden["log_normalizer"][real]),
        "loss": _relative(summed, golden["loss_sum_with_z_loss_1e4"]),
        "prompt gradient": _relative(gradient, golden["prompt_gradient"]),
    }
    print({name: f"{error:.1e}" for name, error in errors.items()})
    record_property("relative_errors", errors)
    assert max(errors.values()) < 1e-5, errors


def _relative(found, expected) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _content(file) -> dict:
    return msgpack.unpackb(file.read_bytes(), strict_map_key=False)


def _leaf(file, name) -> np.ndarray:
    node = _content(file)["optimizer"]["target"]
    for part in name.split("/"):
        node = node[part]
    shape, dtype, data = msgpack.unpackb(node.data)
    return np.frombuffer(data, dtype).reshape(shape)


@pytest.mark.parametrize("name", ["t5_1_1_small", "t5_base", "mt5_large"])
def test_a_published_size_is_recognised(name):
    shapes = layer_shapes(MODELS[name])
    arrays = {
        key: array_in_memory(np.broadcast_to(np.float32(0), shape)) for key, shape in shapes.items()
    }
    assert infer_config(arrays, name="checkpoint_1000", source="x") == MODELS[name]


def test_layer_shapes_are_those_of_t5x():
    shapes = layer_shapes(MODELS["t5_1_1_small"])
    assert shapes["encoder/layers_7/attention/query/kernel"] == (512, 384)
    assert shapes["decoder/layers_0/encoder_decoder_attention/out/kernel"] == (384, 512)
    assert shapes["decoder/relpos_bias/rel_embedding"] == (6, 32)
    assert "encoder/layers_8/attention/query/kernel" not in shapes
    total = sum(np.prod(shape) for shape in shapes.values())
    assert total == count_parameters(abstract_params(MODELS["t5_1_1_small"]))


def test_what_does_not_fit_is_listed(single_file, tmp_path):
    content = _content(single_file)
    target = content["optimizer"]["target"]
    del target["decoder"]["layers_1"]["mlp"]["wo"]
    target["encoder"]["head"] = {"kernel": target["encoder"]["encoder_norm"]["scale"]}
    target["encoder"]["layers_0"]["mlp"]["wo"] = target["encoder"]["layers_0"]["mlp"]["wi_0"]
    path = tmp_path / "checkpoint"
    path.write_bytes(msgpack.packb(content))
    with pytest.raises(UserError) as error:
        stored_t5x(path)
    for part in (
        "decoder/layers_1/mlp/wo/kernel is missing",
        "encoder/head/kernel is unexpected",
        "encoder/layers_0/mlp/wo/kernel has shape (8, 16), expected (16, 8)",
    ):
        assert part in str(error.value)


def test_a_missing_zarr_folder_is_told(zarr_folder, tmp_path):
    gone = "target.encoder.layers_0.mlp.wo.kernel"
    copy = tmp_path / "checkpoint_3"
    shutil.copytree(zarr_folder, copy, ignore=shutil.ignore_patterns(gone))
    with pytest.raises(UserError, match="encoder/layers_0/mlp/wo/kernel"):
        stored_t5x(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "isn't a complete msgpack file"),
        (b"\xff" * 20, "isn't a T5X checkpoint"),
        (msgpack.packb({"optimizer": {"state": 1}}), "no optimizer/target"),
        (msgpack.packb([1, 2]), "no optimizer/target"),
        (msgpack.packb({"optimizer": {"target": {"a": 1}}}), "isn't an array"),
        (msgpack.packb({"optimizer": {"target": {}}}), "no optimizer/target"),
        (
            msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([8], "float32", bytes(16))))}),
            r"isn't a complete msgpack file \(.*cannot reshape array of size 4",
        ),
        (
            msgpack.packb(
                {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 8}, "chunks": {}}}
            ),
            "isn't a complete msgpack file",
        ),
    ],
)
def test_other_files_are_told(tmp_path, content, message):
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        stored_t5x(path)


def test_a_truncated_file_is_told(single_file, tmp_path):
    path = tmp_path / "checkpoint"
    path.write_bytes(single_file.read_bytes()[:1000])
    with pytest.raises(UserError, match="isn't a complete msgpack file"):
        stored_t5x(path)


def test_names_cover_the_tree(single_file):
    config, frozen = load_frozen(single_file)
    assert set(flatten(frozen)) == set(flatten(abstract_params(config)))
