"""Fixtures shared by all tests."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from official_files import write as write_official_files

# Read by TensorFlow when it is imported: no start-up lines among the test output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Read by etils when it is imported, which a test may do before our own modules set it.
os.environ.setdefault("EPATH_USE_TF", "0")
# Two cores are shared by two test processes, and no test needs more than a CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    """Gives a test run one cache of compiled programs, shared by its processes.

    Set in the environment before JAX is imported: the workers of pytest-xdist and the commands that
    tests run inherit it. Most of a run's time would go into compiling the same programs again.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="compiled-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Token ids and generated data go where the tests' other files go, not to the user's cache."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPT_TUNING_CACHE", cache)
        patch.setenv("XDG_CACHE_HOME", cache)
        yield


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout that the tests belong to."""
    return CHECKOUT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real tasks, vocabularies and golden files; the test is skipped without it."""
    folder = Path(os.environ.get("PROMPT_TUNING_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set PROMPT_TUNING_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def _storage():
    """An emulator of Google Cloud Storage on loopback, and its address."""
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = emulator.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    server.start()
    yield server, f"http://localhost:{port}"
    server.stop()


@pytest.fixture
def bucket(_storage, monkeypatch) -> str:
    """An empty bucket, for this process and those it starts."""
    import fsspec
    from etils.epath import backend

    server, address = _storage
    server.wipe(keep_buckets=True)
    # The clients of epath and of TensorStore; the former keeps the address that it started with.
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no search for credentials
    fsspec.get_filesystem_class("gcs").clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    return "gs://bucket"


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def rendered() -> Callable[[Path], tuple[str, str]]:
    """Opens a page in a real browser: gives the DOM after its scripts, and the console's messages.

    The test is skipped where no Chromium is on the PATH.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on the PATH ({', '.join(BROWSERS)}): nothing was rendered")

    def render(page: Path) -> tuple[str, str]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            done = subprocess.run(
                [
                    browser,
                    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                    *("--disable-background-networking", "--disable-sync", "--disable-extensions"),
                    *("--enable-logging=stderr", f"--user-data-dir={profile}"),
                    "--virtual-time-budget=2000",
                    "--dump-dom",
                    page.resolve().as_uri(),
                ],
                check=True,
                timeout=120,
                capture_output=True,
                text=True,
            )
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, "\n".join(console)

    return render


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def compile_once(_compiled):
    """For tests that run one program again and again: it is compiled for the first of them."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    cache = {
        "jax_compilation_cache_dir": str(_compiled),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in cache}
    for name, value in cache.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


ROWS = 6


@pytest.fixture(scope="session")
def tiny_superglue(tmp_path_factory) -> Path:
    """SuperGLUE's eight folders with a few rows each, in the official layout."""
    from prompt_tuning.tinyworld import generate
    from prompt_tuning.tinyworld.tasks import TASKS

    folder = tmp_path_factory.mktemp("superglue")
    for task in TASKS:
        (folder / task).mkdir()
        rows = generate.rows(task, "val")[:ROWS]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        for split in ("train", "val", "test"):
            (folder / task / f"{split}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="session")
def official_files(tmp_path_factory) -> Path:
    """A few rows of every task but SuperGLUE's, in the official layouts."""
    return write_official_files(tmp_path_factory.mktemp("official_files"))


@pytest.fixture(scope="session")
def tiny_data(tiny_superglue, official_files) -> Path:
    """A data folder with a few rows of every task: SuperGLUE's files beside all the others."""
    return Path(shutil.copytree(official_files, tiny_superglue, dirs_exist_ok=True))


@pytest.fixture(scope="session")
def tiny_vocabulary_file(tiny_superglue) -> Path:
    """A SentencePiece model of 200 pieces, made from the rows and labels of `tiny_superglue`."""
    text = [line for file in tiny_superglue.glob("*/train.jsonl") for line in file.open()]
    text += ["False True entailment not_entailment contradiction neutral choice1 choice2"] * 10
    text += ["acceptable unacceptable positive negative equivalent not_equivalent"] * 10
    text += ["duplicate not_duplicate 0.0 0.2 0.4 0.6 0.8 1.2 2.4 3.6 4.8 5.0"] * 10
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(tiny_superglue.parent / "tiny"),
        vocab_size=200,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return tiny_superglue.parent / "tiny.model"


@pytest.fixture(scope="session")
def tiny_weights_file(tmp_path_factory) -> Path:
    """A T5 1.1 of one layer with random weights, for `tiny_vocabulary_file`."""
    import jax
    import numpy as np

    from prompt_tuning.checkpoints.frozen.weights import save_weights
    from prompt_tuning.models.config import T5Config
    from prompt_tuning.models.initialization import abstract_params

    config = T5Config(
        name="tiny_random",
        vocab_size=384,
        embed_dim=16,
        num_heads=2,
        head_dim=8,
        mlp_dim=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
    )
    path = tmp_path_factory.mktemp("weights") / "tiny_random.safetensors"
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32),
        abstract_params(config),
    )
    save_weights(path, params, config)
    return path


@pytest.fixture(scope="session")
def tiny_prompt_file(tmp_path_factory) -> Path:
    """A prompt of 3 virtual tokens for `tiny_weights_file`."""
    import numpy as np

    from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt

    stem = tmp_path_factory.mktemp("prompt") / "tiny"
    prompt = np.random.default_rng(0).normal(size=(3, 16))
    return save_prompt(stem, prompt, PromptMetadata(model="tiny_random"))[1]


@pytest.fixture(scope="session")
def tiny_settings(
    tiny_data, tiny_vocabulary_file, tiny_weights_file, tiny_prompt_file
) -> list[str]:
    """Flags that shrink any shipped config to one step on random weights."""
    settings = {
        "INITIAL_CHECKPOINT_PATH": tiny_weights_file,
        "VOCABULARY_PATH": tiny_vocabulary_file,
        "DATA_DIR": tiny_data,
        "PROMPT_FILE": tiny_prompt_file,
        "PROMPT_LENGTH": 3,
        "TASK_FEATURE_LENGTHS": {"inputs": 40, "targets": 9},
        "BATCH_SIZE": 2,
        "TRAIN_STEPS": 1,
        "frozen_model.architecture": None,
        "frozen_model.name": None,
        "frozen_model.quantization_block": 16,
        "train.tensorboard": False,
    }
    return [f"--gin.{name}={value}" for name, value in settings.items()]


@pytest.fixture
def tiny_flags(tiny_settings, tmp_path) -> list[str]:
    """The same flags, for a run in `tmp_path / "run"`."""
    return [*tiny_settings, f"--gin.MODEL_DIR={tmp_path / 'run'}"]
