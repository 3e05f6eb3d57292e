"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Read by TensorFlow when it is imported: no start-up lines among the test output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Two cores are shared by two test processes, and no test needs more than a CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

CHECKOUT = Path(__file__).resolve().parent.parent


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
