"""Finding frozen models: in the package, on disk, in a bucket and on the hub, without a network."""

import http.server
import threading
import urllib.parse
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from etils.epath import backend, gpath, testing

from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.locations import locate, model_name
from prompt_tuning.errors import UserError
from prompt_tuning.models.parameters import count_parameters

BUCKET = "gs://bucket"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model; lists what was asked of it. Files are there in the order asked for."""
    asked = []
    files = {"config.json", "pytorch_model.bin", "spiece.model", "tf_model.h5"}

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        if repository != "google/t5-small-lm-adapt":
            raise huggingface_hub.errors.RepositoryNotFoundError(
                "404 Client Error. Repository Not Found", response=_Response()
            )
        for name in files & set(allow_patterns):
            (tmp_path / name).write_text(name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked, files


class _Response:
    headers: dict = {}  # noqa: RUF012  what the hub's error looks into
    request = None
    status_code = 404


def test_the_hub_is_asked_for_torch_files_only_where_it_has_no_others(hub, tmp_path):
    asked, files = hub
    assert str(locate("google/t5-small-lm-adapt")) == str(tmp_path)
    assert [("pytorch_model.bin" in patterns) for _, _, patterns in asked] == [False, True]
    assert (tmp_path / "pytorch_model.bin").exists()
    assert (tmp_path / "spiece.model").exists()
    assert not (tmp_path / "tf_model.h5").exists()

    asked.clear()
    files.add("model.safetensors")
    locate("google/t5-small-lm-adapt@abc123")
    assert [revision for _, revision, _ in asked] == ["abc123"]


def test_a_model_is_called_the_same_wherever_it_lies(tmp_path, monkeypatch):
    hash_ = "2d4b3c8f0a5e4d1f9b7c6a8e0d3f2b1c4a5e6d7f"
    cached = tmp_path / "models--google--t5-v1_1-small" / "snapshots" / hash_
    copied = tmp_path / "t5-v1_1-small"
    for folder in (cached, copied):
        folder.mkdir(parents=True)
    linked = tmp_path / "linked"
    linked.symlink_to(copied)
    for given in (
        "google/t5-v1_1-small",
        "google/t5-v1_1-small@main",
        f"google/t5-v1_1-small@{hash_}",
        "google/t5-v1_1-small@refs/pr/7",
        cached,
        copied,
        f"{copied}/",
        linked / ".." / "t5-v1_1-small",
        "gs://bucket/models/t5-v1_1-small",
        "gs://bucket/models/t5-v1_1-small/",
        "gs://bucket/t5-v1_1-small/state",
    ):
        assert model_name(given) == "t5-v1_1-small", given
    for folder in (cached, copied):
        monkeypatch.chdir(folder)
        assert model_name(".") == "t5-v1_1-small"
    monkeypatch.chdir(tmp_path)
    assert model_name("t5-v1_1-small") == "t5-v1_1-small"
    assert model_name("gs://bucket/lm100k/checkpoint_1100000/state") == "checkpoint_1100000"


def test_a_folder_here_of_a_hub_models_name(tmp_path, monkeypatch):
    (tmp_path / "google" / "model@1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_name("google/model@1") == "model@1"


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(UserError) as error:
        locate("google/t5-smal-lm-adapt")
    assert "\n" not in str(error.value)
    assert "hub can't provide a model of that name (RepositoryNotFoundError: 404" in str(
        error.value
    )


def test_without_the_hubs_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        locate("google/t5-small-lm-adapt")


@pytest.mark.parametrize("path", ["./runs/model", "/no/such/model", "../model", "a/b/c", "model"])
def test_a_path_that_is_not_there_is_no_name_on_the_hub(path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        locate(path)


@pytest.fixture
def without_tensorflow(monkeypatch):
    """TensorFlow would have epath's mocks passed by."""
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)


@pytest.fixture
def bucket(monkeypatch, without_tensorflow):
    """Serves a folder as a bucket: to epath by a mock, to TensorStore over HTTP on loopback."""
    folder = {}

    def local(path) -> Path:
        return Path(str(path).replace(BUCKET, str(folder["path"]), 1))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = urllib.parse.unquote(urllib.parse.urlparse(self.path).path.split("/o/")[1])
            file = folder["path"] / name
            data = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if file.is_file() else 404)
            self.send_header("x-goog-generation", "1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    disk = backend.os_backend
    with testing.mock_epath(
        exists=lambda _, path: disk.exists(local(path)),
        isdir=lambda _, path: disk.isdir(local(path)),
        open=lambda _, path, mode: disk.open(local(path), mode),
        stat=lambda _, path: disk.stat(local(path)),
    ):
        yield lambda path: folder.update(path=path) or BUCKET
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_t5x_checkpoint_in_a_bucket(real_data, bucket):
    folder = real_data / "t5x_checkpoints" / "random_t5_1_1_tiny_zarr"
    address = bucket(folder)
    _, expected = load_frozen(folder / "checkpoint_3")
    config, loaded = load_frozen(f"{address}/checkpoint_3")
    assert config.name == "checkpoint_3"
    np.testing.assert_array_equal(
        loaded["encoder"]["layers"]["mlp"]["wo"]["kernel"],
        expected["encoder"]["layers"]["mlp"]["wo"]["kernel"],
    )


def test_our_safetensors_in_a_bucket(tiny_weights_file, bucket):
    path = f"{bucket(tiny_weights_file.parent)}/{tiny_weights_file.name}"
    assert load_frozen(path)[0].name == "tiny_random"


def test_a_bucket_that_cannot_be_reached(without_tensorflow, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "bucket")

    def refuse(_, path):
        raise RuntimeError("Could not\nreach storage")

    with testing.mock_epath(exists=refuse), pytest.raises(UserError) as error:
        locate(f"{BUCKET}/checkpoint_3")
    assert str(error.value) == "Can't look up 'gs://bucket/checkpoint_3': Could not reach storage."


def test_the_shipped_decoder_only_model():
    config, frozen = load_frozen("tinyworld_decoder")
    assert (config.family, config.pad_id, config.eos_id) == ("qwen3", 0, 1)
    assert count_parameters(frozen) == 467_936
