"""PyTorch's files: tensors are read, and nothing else that a pickle can hold."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from prompt_tuning.checkpoints.arrays.torch_files import stored_torch
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.errors import UserError

torch = pytest.importorskip("torch")

TENSORS = {
    "kernel": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.linspace(-2, 2, 6).reshape(2, 3).to(torch.bfloat16),
    "turned": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
}


class Harm:
    """What a pickle can do: run a program when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read(tmp_path, zipped):
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    found = stored_torch(path)
    assert found["half"].dtype == "bfloat16"
    for name, tensor in TENSORS.items():
        assert found[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(
            np.asarray(found[name]).astype(np.float32), tensor.to(torch.float32).numpy()
        )


def test_a_program_in_a_pickle_is_not_run(tmp_path):
    harmed = tmp_path / "harmed"
    path = tmp_path / "pytorch_model.bin"
    for write in (
        lambda: torch.save({"a": Harm(harmed)}, path),
        lambda: path.write_bytes(pickle.dumps({"a": Harm(harmed)})),
    ):
        write()
        with pytest.raises(UserError) as error:
            stored_torch(path)
        assert "that contains more than tensors, which is never loaded" in str(error.value)
        assert "\n" not in str(error.value)
        assert not harmed.exists()


def test_other_contents_are_told(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="it contains a list, not a dict of tensors"):
        stored_torch(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="epoch is a int, not a tensor"):
        stored_torch(path)
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match="Can't read weights from .*pytorch_model.bin"):
        stored_torch(path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(UserError, match="Can't read weights from .*pytorch_model.bin"):
        stored_torch(path)


def test_without_pytorch(tmp_path, monkeypatch):
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torch, or give a copy with model.safetensors"):
        stored_torch(tmp_path / "pytorch_model.bin")


def test_a_pickle_or_a_zip_in_place_of_a_model(tmp_path):
    for protocol in (2, 3, 4, 5):
        path = tmp_path / "model.safetensors"
        path.write_bytes(pickle.dumps({"a": Harm(tmp_path / "harmed")}, protocol=protocol))
        with pytest.raises(UserError, match="is a pickle, which is never loaded"):
            load_frozen(path)
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as file:
        file.writestr("../evil", "x")
    with pytest.raises(UserError, match="is a zip file; for a pytorch_model.bin, give the folder"):
        load_frozen(tmp_path / "model.npz")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("file", ["../other.bin", "/etc/other.bin", ".."])
def test_an_index_that_leads_outside(tmp_path, file):
    fields = {"model_type": "t5", "vocab_size": 8, "d_model": 4, "num_heads": 2, "d_kv": 2}
    fields |= {"d_ff": 4, "num_layers": 1, "relative_attention_num_buckets": 4}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    index = json.dumps({"weight_map": {"shared.weight": file}})
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(UserError, match="expected the name of a file in the same folder"):
        load_frozen(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    with pytest.raises(UserError, match="no weights that can be read"):
        load_frozen(tmp_path)
