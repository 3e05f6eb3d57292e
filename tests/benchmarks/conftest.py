"""Makes the benchmarks importable by each other, as they are when run as scripts."""

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def _beside_each_other(checkout):
    folder = str(checkout / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
