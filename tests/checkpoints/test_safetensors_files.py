"""Safetensors files: the same as the package's own, and damage told in one line."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints.arrays import stored_arrays
from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors, write_safetensors
from prompt_tuning.errors import UserError

ARRAYS = {
    "a/kernel": np.arange(60, dtype=np.float32).reshape(5, 3, 4),
    "b": np.linspace(-3, 3, 7).astype(ml_dtypes.bfloat16),
    "steps": np.arange(3, dtype=np.int64),
}


def write(path, arrays):
    shapes = {name: array.shape for name, array in arrays.items()}
    dtypes = {name: array.dtype for name, array in arrays.items()}
    write_safetensors(path, arrays.items(), shapes, dtypes, {"made": "here"})


def test_the_packages_own_reader_reads_what_is_written(tmp_path):
    write(tmp_path / "a.safetensors", {**ARRAYS, "turned": ARRAYS["a/kernel"].T})
    found = load_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found.pop("turned"), ARRAYS["a/kernel"].T)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_the_package_writes_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_arrays, "BLOCK_BYTES", 100)  # two rows of 48 bytes
    save_file(ARRAYS, tmp_path / "a.safetensors", {"x": "y"})
    found, metadata = stored_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"x": "y"}
    assert [len(rows) for _, rows in found["a/kernel"].blocks()] == [2, 2, 1]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(np.asarray(found[name]), array)


def header(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def entry(**changes) -> bytes:
    fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return header(json.dumps({"a": fields}).encode()) + b"\0" * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "aren't the length of a header"),
        (b"\xff" * 20, "aren't the length of a header"),
        (struct.pack("<Q", 10**6) + b"{}", "aren't the length of a header"),
        (header(b"not json!"), "its header can't be read"),
        (header(b"[1, 2]"), "its header can't be read"),
        (header(b'{"a": 3}'), "its header can't be read"),
        (header(b"\xff\xfe{}"), "its header can't be read"),
        (entry(shape=[3]), "a of shape (3,) doesn't fit the 8 bytes it has"),
        (entry(data_offsets=[-8, 0]), "doesn't fit"),
        (entry(shape=[4], data_offsets=[0, 16]), "it ends in the middle of a"),
        (entry(dtype="F8_E4M3"), "a in .* is of type 'F8_E4M3'; expected floating-point numbers"),
    ],
)
def test_damage_is_told(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        stored_safetensors(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert message.split(".*")[-1] in str(error.value)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, ARRAYS)
    found, _ = stored_safetensors(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="ends in the middle of its weights"):
        for array in found.values():
            np.asarray(array)
