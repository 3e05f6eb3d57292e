"""Damaged and odd files: each is reported in one line, whoever wrote it.

What is checked is a `UserError` that names the file, what was found and what was expected; nothing
in a file is run, and nothing large is allocated. Truncated files and arrays of another size have
their tests beside each reader's.
"""

import json
import os
import struct
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.errors import UserError

FIELDS = {
    "model_type": "t5",
    "vocab_size": 8,
    "d_model": 4,
    "num_heads": 2,
    "d_kv": 2,
    "d_ff": 4,
    "num_layers": 1,
    "relative_attention_num_buckets": 4,
}
T5_CONFIG = {
    "name": "x",
    "embed_dim": 4,
    "num_heads": 2,
    "mlp_dim": 4,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}
DEEP = "[" * 100_000
LONGEST_LINE = 700


def short(parameter):
    """A test's name for a parameter that may be long."""
    return str(parameter)[:40]


@pytest.fixture
def told():
    """Runs a reader that must fail, and returns its one line."""

    def run(read, path, *expected):
        started = time.monotonic()
        with pytest.raises(UserError) as error:
            read(path)
        assert time.monotonic() - started < 60, "it was told, but only after long work"
        line = str(error.value)
        assert "\n" not in line and line.isprintable(), line
        assert len(line) < LONGEST_LINE, line
        for part in (path.name, *expected):
            assert part in line, line

    return run


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1, 2]", "contains [1, 2], expected a JSON object"),
        ('"t5"', "expected a JSON object"),
        ("", "isn't JSON"),
        (b"\xff\xfe\xfa", "isn't JSON"),
        (DEEP, "nested more deeply than"),
        ({"model_type": ["t5"]}, "has the model type ['t5']; expected one of 't5', 'mt5'"),
        ({"feed_forward_proj": {"a": 1}}, "feed_forward_proj={'a': 1}; expected relu"),
        ({"d_model": "512"}, "d_model='512'; expected an integer"),
        ({"d_model": None}, "lacks the field 'd_model'"),
        ({"d_model": 4.0}, "d_model=4.0; expected an integer"),
        ({"d_model": float("nan")}, "d_model=nan; expected an integer"),
        ({"d_model": -4}, "d_model=-4; expected an integer from 1"),
        ({"d_model": 0}, "d_model=0; expected an integer from 1"),
        ({"d_model": 10**30}, "expected an integer from 1 to 2,147,483,647"),
        ({"num_layers": 10**9}, "num_layers=1000000000; expected an integer from 1 to 1,000"),
        ({"num_decoder_layers": "1"}, "num_decoder_layers='1'; expected an integer"),
        ({"relative_attention_num_buckets": 1}, "num_buckets=1; expected an integer from 4"),
        ({"layer_norm_epsilon": "tiny"}, "layer_norm_epsilon='tiny'; expected a number"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon=nan; expected a number"),
        ({"layer_norm_epsilon": -1}, "layer_norm_epsilon=-1; expected a number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings='no'; expected true or false"),
        ({"scale_decoder_outputs": []}, "scale_decoder_outputs=[]; expected true or false"),
        ({"pad_token_id": -1}, "pad_token_id=-1; expected an integer from 0"),
        ({"eos_token_id": [1]}, "eos_token_id=[1]; expected an integer"),
    ],
)
def test_config_json(tmp_path, told, content, expected):
    path = tmp_path / "config.json"
    if isinstance(content, dict):
        content = json.dumps(FIELDS | content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told(lambda path: load_frozen(path.parent), path, expected)


def test_a_config_json_of_sizes_that_no_weights_have(tmp_path, told):
    sizes = {"d_model": 2**31 - 1, "vocab_size": 2**31 - 1, "num_layers": 100}
    (tmp_path / "config.json").write_text(json.dumps(FIELDS | sizes))
    save_file({"shared.weight": np.ones((8, 4), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"and \d,\d\d\d more\.$"):
        load_frozen(tmp_path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (DEEP, "nested more deeply than"),
        ("[]", "expected a JSON object"),
        ({}, "has the weight_map None; expected an object"),
        ({"weight_map": {}}, "has the weight_map {}; expected an object"),
        ({"weight_map": ["a.safetensors"]}, "has the weight_map ['a.safetensors']"),
        ({"weight_map": {"a": 3}}, "says that 'a' is in 3; expected the name of a file"),
        ({"weight_map": {"a": ".."}}, "says that 'a' is in '..'; expected the name of a file in"),
        ({"weight_map": {"a": "../b.safetensors"}}, "says that 'a' is in '../b.safetensors'"),
        ({"weight_map": {"a": "/etc/passwd"}}, "says that 'a' is in '/etc/passwd'"),
    ],
)
def test_an_index_of_shards(tmp_path, told, weights, content, expected):
    (tmp_path / "config.json").write_text(json.dumps(FIELDS))
    path = tmp_path / f"{weights}.index.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    told(lambda path: load_frozen(path.parent), path, expected)


def safetensors(path, header: str | bytes, data: bytes = b""):
    header = header.encode() if isinstance(header, str) else header
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def entry(**changes):
    fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return json.dumps({"a": fields | changes})


HEADERS = [
    ("{" + DEEP, "its header can't be read"),
    ('{"a": 3}', "its header can't be read"),
    ('{"__metadata__": [1]}', "its header can't be read"),
    (b'{"\xff": 3}', "its header can't be read"),
    (entry(shape="2"), "doesn't fit the 8 bytes"),
    (entry(shape=None), "its header can't be read"),
    (entry(shape=[10**30, 10**30]), "doesn't fit the 8 bytes"),
    (entry(data_offsets=[0, 4, 8]), "its header can't be read"),
    (entry(data_offsets=[-8, 0]), "doesn't fit the 8 bytes"),
    (entry(data_offsets=[10**30, 10**30 + 8]), "ends in the middle of a"),
    (entry(dtype=["F32"]), "its header can't be read"),
    (entry(dtype="F4"), "is of type 'F4'; expected floating-point numbers"),
]


@pytest.mark.parametrize(("header", "expected"), HEADERS)
def test_a_safetensors_header(tmp_path, told, header, expected):
    path = safetensors(tmp_path / "model.safetensors", header, bytes(8))
    told(load_frozen, path, expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DEEP, "isn't JSON"),
        ("[1]", "found [1], expected a JSON object"),
        ("3", "found 3, expected a JSON object"),
        ({"embed_dim": "4"}, "embed_dim of model 'x' is '4'; expected an integer"),
        ({"num_encoder_layers": 10**12}, "num_encoder_layers of model 'x' is 1000000000000"),
        ({"name": ["x"]}, "is ['x']; expected a string"),
        ({"gated_mlp": 1}, "gated_mlp of model 'x' is 1; expected true or false"),
        ({"evil": 1}, "unknown fields ['evil']"),
    ],
)
def test_our_own_metadata(tmp_path, told, config, expected):
    text = config if isinstance(config, str) else json.dumps(T5_CONFIG | config)
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2, np.float32)}, path, {"t5_config": text})
    told(load_frozen, path, expected)


def extension(shape, dtype, data=b""):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))


@pytest.mark.parametrize(
    "content",
    [
        b"\x81\xa1a" * 100_000,
        b"\x81" + b"\x91" * 2000 + b"\x01" + b"\x01",
        b"\xdf\xff\xff\xff\xff",
        {"a": msgpack.ExtType(1, b"")},
        {"a": extension([2**40, 2**40], "float32")},  # their product is 0 in 64 bits
        {"a": extension("2", "float32", bytes(8))},
        {"a": extension([1], "object", bytes(8))},
        {"a": extension([1], ["f4"], bytes(4))},
    ],
    ids=short,
)
@pytest.mark.parametrize("read", [load_frozen, load_prompt])
def test_msgpack(tmp_path, told, read, content):
    path = tmp_path / "checkpoint"
    path.write_bytes(content if isinstance(content, bytes) else msgpack.packb(content))
    told(read, path, "isn't a complete msgpack file")


def t5x_index(tmp_path, target):
    content = {"optimizer": {"target": {"encoder": {"prompt": target}}}}
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(content))
    return tmp_path


@pytest.mark.parametrize(
    "kvstore",
    ["text", {}, {"path": 3}, {"path": ["a"]}, {"path": "a/../../b"}, {"path": "/etc/a"}],
    ids=short,
)
def test_a_t5x_index_that_leads_nowhere(tmp_path, told, kvstore):
    target = {"driver": "zarr", "kvstore": kvstore}
    told(load_frozen, t5x_index(tmp_path, target), "outside its folder")


@pytest.mark.parametrize("path", ["a\0b", "%2e%2e/outside", "file:///etc", "a?b", "a|zip:", "a#b"])
def test_a_t5x_index_with_odd_names(tmp_path, told, path):
    """They are names of folders as they stand; none of them is there."""
    import tensorstore

    outside = {"driver": "file", "path": f"{tmp_path}/outside/"}
    spec = {"driver": "zarr", "kvstore": outside, "metadata": {"chunks": [2]}}
    tensorstore.open(spec, create=True, dtype="float32", shape=(2,)).result().write(1).result()
    (tmp_path / "checkpoint_3").mkdir()
    target = {"driver": ["zarr"], "kvstore": {"driver": "gfile", "path": path}}
    told(load_frozen, t5x_index(tmp_path / "checkpoint_3", target), "Can't read encoder/prompt")


def test_names_that_an_address_would_unpack(tmp_path):
    """A folder whose name has what an address gives a meaning to is read as any other."""
    import tensorstore

    folder = tmp_path / "100% of #1 a?b|c"
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{folder}/a%20b/"}}
    spec["metadata"] = {"chunks": [2, 3]}
    store = tensorstore.open(spec, create=True, dtype="float32", shape=(2, 3)).result()
    store.write(np.ones((2, 3), np.float32)).result()
    target = {"driver": "zarr", "kvstore": {"driver": "gfile", "path": "a%20b"}}
    t5x_index(folder, {"prompt": {"prompt": target}})
    np.testing.assert_array_equal(load_prompt(folder)[0], np.ones((2, 3)))


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "[1]",
        '{"tree_metadata": []}',
        '{"tree_metadata": {"a": 3}}',
        '{"tree_metadata": {"a": {"key_metadata": [3], "value_metadata": {}}}}',
        '{"tree_metadata": {"a": {"key_metadata": [], "value_metadata": []}}}',
        b'{"tree_metadata": "\xff"}',
    ],
    ids=short,
)
def test_orbaxs_list(tmp_path, told, content):
    path = tmp_path / "_METADATA"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told(lambda path: load_frozen(path.parent), path, "can't be read as Orbax's list of arrays")


@pytest.mark.parametrize("key", ["../../outside", "/etc/a", "a/../../b"])
def test_orbaxs_list_that_leads_outside(tmp_path, told, key):
    leaf = {"key_metadata": [{"key": key}], "value_metadata": {"value_type": "jax.Array"}}
    (tmp_path / "_METADATA").write_text(json.dumps({"tree_metadata": {"a": leaf}}))
    told(load_frozen, tmp_path, "outside its folder")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("encoder/encoder/relpos_bias/rel_embedding", (2, 3)),
        ("encoder/encoder/relpos_bias/rel_embedding", (2, 0, 3)),
        ("encoder/layers_0/attention/qkv_fused/kernel", (4,)),
        ("encoder/layers_0/attention/qkv_fused/kernel", (4, 2, 2, 2)),
        ("encoder/encoder/mlp/wi_fused/kernel", (4, 2, 4)),
        ("encoder/encoder/pre_mlp_layer_norm/scale", (4,)),
        ("encoder/relpos_bias/rel_embedding", (0, 4)),
        ("encoder/relpos_bias/rel_embedding", (4,)),
        (f"encoder/layers_{'9' * 4}/mlp/wi/kernel", (4, 4)),
    ],
    ids=short,
)
def test_t5x_arrays_of_odd_shapes(tmp_path, told, name, shape):
    shapes = {
        "token_embedder/embedding": (8, 4),
        "encoder/relpos_bias/rel_embedding": (2, 4),
        "encoder/layers_0/attention/query/kernel": (4, 4),
        "encoder/layers_0/mlp/wi/kernel": (4, 4),
    } | {name: shape}
    target: dict = {}
    for path, lengths in shapes.items():
        *folders, last = path.split("/")
        node = target
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = extension(list(lengths), "float32", bytes(4 * int(np.prod(lengths))))
    path = tmp_path / "checkpoint"
    path.write_bytes(msgpack.packb({"target": target}))
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        load_frozen(path)
    assert time.monotonic() - started < 60
    assert "\n" not in str(error.value) and path.name in str(error.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DEEP, "nested more deeply than"),
        (b"\xff", "Can't read"),
        ("[1]", "expected a JSON object"),
        ({"peft_type": ["PROMPT_TUNING"]}, "peft_type ['PROMPT_TUNING']"),
        ({"num_virtual_tokens": True}, "num_virtual_tokens in adapter_config.json is True"),
        ({"num_virtual_tokens": "1"}, "num_virtual_tokens in adapter_config.json is '1'"),
        ({"num_virtual_tokens": -1}, "num_virtual_tokens in adapter_config.json is -1"),
    ],
)
def test_peft(tmp_path, told, config, expected):
    prompt = {"prompt_embeddings": np.ones((1, 4), np.float32)}
    save_file(prompt, tmp_path / "adapter_model.safetensors")
    fields = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 1}
    if isinstance(config, dict):
        config = json.dumps(fields | config)
    path = tmp_path / "adapter_config.json"
    path.write_bytes(config if isinstance(config, bytes) else config.encode())
    told(load_prompt, tmp_path, expected)


@pytest.mark.parametrize(("header", "expected"), HEADERS[:3])
def test_pefts_weights(tmp_path, told, header, expected):
    safetensors(tmp_path / "adapter_model.safetensors", header, bytes(8))
    (tmp_path / "adapter_config.json").write_text("{}")
    told(load_prompt, tmp_path, expected)


@pytest.mark.parametrize(("header", "expected"), HEADERS[:3])
def test_a_safetensors_prompt(tmp_path, told, header, expected):
    told(load_prompt, safetensors(tmp_path / "p.safetensors", header, bytes(8)), "not a prompt")


@pytest.mark.parametrize(
    "metadata",
    [{"step": "nine"}, {"score": "high"}, {"step": "1e3"}],
)
def test_a_prompts_metadata(tmp_path, told, metadata):
    path = tmp_path / "p.safetensors"
    save_file({"prompt": np.ones((1, 4), np.float32)}, path, metadata)
    told(load_prompt, path, "metadata of")


def test_pytorch_tensors_that_are_no_numbers(tmp_path, told):
    torch = pytest.importorskip("torch")
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 1}'
    )
    path = tmp_path / "adapter_model.bin"
    for tensor in (
        torch.ones(1, 4).to_sparse(),
        torch.ones(1, 4).to(torch.float8_e4m3fn),
        torch.ones(1, 4, dtype=torch.complex64),
    ):
        torch.save({"prompt_embeddings": tensor}, path)
        told(load_prompt, path, "has dtype")


@pytest.mark.parametrize("read", [load_frozen, load_prompt, load_adapter])
def test_a_pipe_or_a_device(tmp_path, told, read):
    """Reading one could wait for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    told(read, path, "neither a file nor a folder")
    told(read, Path("/dev/zero"), "neither a file nor a folder")


@pytest.mark.parametrize("read", [load_prompt, load_adapter])
def test_numbers_of_eight_bits(tmp_path, told, read):
    header = {"prompt": {"dtype": "F8_E4M3", "shape": [2, 4], "data_offsets": [0, 8]}}
    path = safetensors(tmp_path / "p.safetensors", json.dumps(header), bytes(8))
    told(read, path, "prompt", "is of type 'F8_E4M3'; expected floating-point numbers")


@pytest.mark.parametrize("attributes", [DEEP, "[1]", "{"], ids=short)
def test_attributes_of_a_method(tmp_path, told, attributes):
    path = tmp_path / "p.safetensors"
    metadata = {"attributes": attributes, "method": "lora"}
    save_file({"a": np.ones((1, 4), np.float32)}, path, metadata)
    told(load_adapter, path, "doesn't describe the method lora")
