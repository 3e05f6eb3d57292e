"""T5X's layouts, each made here from one model: loading gives that model back, value for value."""

import jax
import ml_dtypes
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

from prompt_tuning.checkpoints.frozen.layouts import layer_shapes
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.t5x import variables
from prompt_tuning.checkpoints.frozen.weights import flatten, unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params

CONFIG = T5Config(
    name="layouts",
    vocab_size=40,
    embed_dim=10,
    num_heads=3,
    head_dim=4,
    mlp_dim=14,
    num_encoder_layers=3,
    num_decoder_layers=2,
    relative_attention_num_buckets=6,
)
HEADS = (CONFIG.num_heads, CONFIG.head_dim)


@pytest.fixture(scope="module")
def frozen():
    """The model, its values all different."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_params(CONFIG)
    )


@pytest.fixture(scope="module")
def layers(frozen):
    """The model in the common layout."""
    arrays = {}
    flat = flatten(frozen)
    for name, shape in layer_shapes(CONFIG).items():
        stack, layer, *rest = name.split("/")
        if layer.startswith("layers_"):
            whole = flat["/".join([stack, "layers", *rest])]
            arrays[name] = whole[int(layer.removeprefix("layers_"))].reshape(shape)
        else:
            arrays[name] = flat[name]
    return arrays


def apart(name, array):
    """Heads on an axis of their own."""
    if name.endswith("/out/kernel"):
        return array.reshape(*HEADS, -1)
    if "attention" in name and name.endswith("/kernel"):
        return array.reshape(-1, *HEADS)
    return array


def heads_apart(layers):
    return {name: apart(name, array) for name, array in layers.items()}


def fused(layers):
    """Query, key and value in one; of attention to the encoder, key and value; and wi."""
    parts = {name: apart(name, array) for name, array in layers.items()}
    for module in sorted({name.rsplit("/", 2)[0] for name in parts}):
        take = {
            "attention": ("qkv_fused", "query", "key", "value"),
            "self_attention": ("qkv_fused", "query", "key", "value"),
            "encoder_decoder_attention": ("kv_fused", "key", "value"),
            "mlp": ("wi_fused", "wi_0", "wi_1"),
        }.get(module.rpartition("/")[2])
        if take:
            whole = np.stack([parts.pop(f"{module}/{one}/kernel") for one in take[1:]], axis=1)
            parts[f"{module}/{take[0]}/kernel"] = whole
    return parts


def scanned(layers):
    """Layers on the second axis; a relative position bias in each."""
    result, stacks = {}, {}
    for name, array in layers.items():
        stack, layer, *rest = name.split("/")
        if layer.startswith("layers_"):
            stacks.setdefault("/".join([stack, stack, *rest]), []).append(array)
        elif layer == "relpos_bias":
            count = {"encoder": 3, "decoder": 2}[stack]
            stacks[f"{stack}/{stack}/relpos_bias/rel_embedding"] = [array] * count
        else:
            result[name] = array
    return result | {name: np.stack(arrays, axis=1) for name, arrays in stacks.items()}


LAYOUTS = {
    "heads apart": heads_apart,
    "fused": fused,
    "scanned": scanned,
    "scanned with heads apart": lambda layers: scanned(heads_apart(layers)),
    "scanned and fused": lambda layers: scanned(fused(layers)),
}


def write_single_file(path, arrays):
    """As `flax.serialization` does; arrays of two axes or more cut up, as those over 4 GiB are."""

    def encode(array):
        kind = "bfloat16" if array.dtype == ml_dtypes.bfloat16 else array.dtype.name
        return msgpack.ExtType(1, msgpack.packb((array.shape, kind, array.tobytes())))

    def cut(array):
        pieces = np.array_split(array.reshape(-1), 3)
        return {
            "__msgpack_chunked_array__": True,
            "shape": {str(axis): length for axis, length in enumerate(array.shape)},
            "chunks": {str(number): encode(piece) for number, piece in enumerate(pieces)},
        }

    target = unflatten({name: encode(a) if a.ndim < 2 else cut(a) for name, a in arrays.items()})
    path.write_bytes(msgpack.packb({"version": 3, "optimizer": {"target": target, "state": {}}}))
    return path


def write_zarr(folder, arrays):
    """As T5X does: an index, and a zarr folder an array."""
    folder.mkdir()
    index = {}
    for name, array in arrays.items():
        inside = f"target.{name.replace('/', '.')}"
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder / inside)}}
        spec["metadata"] = {"chunks": [7, *array.shape[1:]], "compressor": {"id": "gzip"}}
        store = tensorstore.open(
            spec, create=True, dtype=array.dtype.name, shape=array.shape
        ).result()
        store.write(array).result()
        index[name] = {"driver": "zarr", "kvstore": {"driver": "gfile", "path": inside}}
    content = {"version": 3, "optimizer": {"target": unflatten(index), "state": {"step": 7}}}
    (folder / "checkpoint").write_bytes(msgpack.packb(content))
    return folder


def same(loaded, expected):
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_model(tmp_path, frozen, layers, layout):
    path = write_single_file(tmp_path / "model", LAYOUTS[layout](layers))
    config, loaded = load_frozen(path)
    assert (config.num_encoder_layers, config.num_decoder_layers, config.mlp_dim) == (3, 2, 14)
    same(loaded, frozen)


def test_zarr_chunks_and_a_cast(tmp_path, frozen, layers):
    folder = write_zarr(tmp_path / "checkpoint_7", layers)
    same(load_frozen(folder)[1], frozen)
    _, loaded = load_frozen(folder, dtype="bfloat16")
    same(loaded, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), frozen))


@pytest.mark.parametrize(
    ("ocdbt", "zarr3", "item"), [(True, False, "state"), (False, False, ""), (True, True, "")]
)
def test_orbax(tmp_path, frozen, layers, ocdbt, zarr3, item):
    state = {"target": unflatten(layers), "state": {"step": np.int32(3), "param_states": {}}}
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt, use_zarr3=zarr3)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_3" / item, args=ocp.args.PyTreeSave(state))
    config, loaded = load_frozen(tmp_path / "checkpoint_3")
    assert config.name == "checkpoint_3"
    same(loaded, frozen)


def test_one_variable_is_read_alone(tmp_path, layers):
    prompt = np.arange(20, dtype=np.float32).reshape(2, 10)
    folder = write_zarr(tmp_path / "c", {**layers, "encoder/prompt/prompt/prompt": prompt})
    for chunk in folder.glob("target.encoder.layers_*/0*"):
        chunk.unlink()
    found = variables(folder)["encoder/prompt/prompt/prompt"]
    assert (found.shape, found.dtype) == ((2, 10), np.float32)
    np.testing.assert_array_equal(np.asarray(found), prompt)


@pytest.mark.parametrize("stacked", [True, False])
def test_a_bias_of_each_layer(tmp_path, layers, stacked):
    """UMT5's, of stacked layers and of separate ones."""
    rng = np.random.default_rng(1)
    biases, arrays = {}, {k: v for k, v in layers.items() if "relpos_bias" not in k}
    for stack, count in {"encoder": 3, "decoder": 2}.items():
        biases[stack] = rng.normal(size=(count, 3, 6)).astype(np.float32)
        for layer, bias in enumerate(biases[stack]):
            arrays[f"{stack}/layers_{layer}/relpos_bias/rel_embedding"] = bias
    arrays = scanned(arrays) if stacked else arrays
    config, loaded = load_frozen(write_single_file(tmp_path / "model", arrays))
    assert config.bias_per_layer
    for stack, bias in biases.items():
        same(loaded[stack]["layers"]["relpos_bias"]["rel_embedding"], bias)


def test_whole_numbers_are_no_weights(tmp_path, layers):
    arrays = {**layers, "encoder/encoder_norm/scale": np.ones(10, np.uint16)}
    with pytest.raises(
        UserError, match="encoder_norm/scale has dtype uint16, expected floating-point"
    ):
        load_frozen(write_single_file(tmp_path / "model", arrays))


class TestDamage:
    """One clear line each, naming the array and the checkpoint."""

    NAME = "decoder/layers_1/mlp/wo/kernel"
    FOLDER = "target.decoder.layers_1.mlp.wo.kernel"

    @pytest.fixture
    def folder(self, tmp_path, layers):
        return write_zarr(tmp_path / "checkpoint_7", layers)

    @pytest.fixture
    def fails(self, folder):
        def told():
            with pytest.raises(UserError) as error:
                load_frozen(folder)
            message = str(error.value)
            assert "\n" not in message and len(message) < 500
            assert str(folder) in message and self.NAME in message
            return message

        return told

    def test_a_truncated_chunk(self, folder, fails):
        chunk = folder / self.FOLDER / "1.0"
        chunk.write_bytes(chunk.read_bytes()[:100])
        assert "truncated" in fails()

    def test_a_missing_chunk(self, folder, fails):
        (folder / self.FOLDER / "1.0").unlink()
        assert "missing" in fails()

    def test_a_missing_description(self, folder, fails):
        (folder / self.FOLDER / ".zarray").unlink()
        assert "does not exist" in fails()

    @pytest.mark.parametrize("path", ["../checkpoint_8/a", "/etc/a", ""])
    def test_an_index_that_leads_outside(self, folder, fails, path):
        content = msgpack.unpackb((folder / "checkpoint").read_bytes(), strict_map_key=False)
        node = content["optimizer"]["target"]["decoder"]["layers_1"]["mlp"]["wo"]
        node["kernel"]["kvstore"]["path"] = path
        (folder / "checkpoint").write_bytes(msgpack.packb(content))
        assert "outside its folder" in fails()


def test_a_damaged_orbax_list_is_told(tmp_path):
    (tmp_path / "_METADATA").write_text('{"tree_metadata": [')
    with pytest.raises(UserError, match="can't be read as Orbax's list of arrays"):
        load_frozen(tmp_path)
