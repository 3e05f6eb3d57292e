"""The wheel: what is in it, and that the commands run from it with no checkout around."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# Without pip's isolation, which would fetch setuptools: the tests need no network.
BUILD = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, checkout) -> Path:
    pytest.importorskip("setuptools", minversion="80")
    source = tmp_path_factory.mktemp("source") / "checkout"  # a build leaves folders behind
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("prompt_tuning", "configs"):
        shutil.copytree(checkout / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, source / name)
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, *BUILD, "--wheel-dir", str(folder), str(source)], check=True, timeout=300
    )
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """The wheel, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def command(site, tmp_path):
    """Runs a command of the unpacked wheel in an empty folder, and returns what it prints."""

    def run(*argv: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            [sys.executable, *argv],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_everything_of_the_package_is_in_it(site, checkout):
    assert files(site / "prompt_tuning" / "configs") == files(checkout / "configs")
    packed = {name for name in files(site / "prompt_tuning") if not name.startswith("configs/")}
    assert packed == files(checkout / "prompt_tuning")
    assert {Path(name).suffix for name in packed if name.startswith("assets/tinyworld/")} == {
        ".safetensors",
        ".model",
        ".md",
    }
    for card in (site / "prompt_tuning" / "assets").rglob("*.safetensors"):
        assert card.with_suffix(".md").is_file(), f"{card.name} has no card"
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {
        "prompt_tuning"
    }
    (metadata,) = site.glob("*.dist-info")
    assert (
        "prompt-tuning = prompt_tuning.cli.__main__:run"
        in (metadata / "entry_points.txt").read_text()
    )
    assert list(metadata.rglob("LICENSE"))


def test_its_own_configs_are_found(command, site):
    program = "import prompt_tuning.cli.gin_config as g; print(g.__file__, g.shipped_configs())"
    module, configs = command("-c", program).split()
    assert Path(module).is_relative_to(site)
    assert Path(configs) == site / "prompt_tuning" / "configs"
    assert "superglue_rte" in command("-m", "prompt_tuning.cli", "tasks")


def test_the_quickstart_runs_from_it(command, tmp_path):
    printed = command("-m", "prompt_tuning.cli", "quickstart", "--gin.TRAIN_STEPS=2")
    assert "on the test split" in printed and "Made 2 of 2 steps" in printed
    run = tmp_path / "runs" / "quickstart"
    assert (run / "summary.json").is_file() and (run / "learning_curve.png").is_file()
    printed = command("-m", "prompt_tuning.cli", "neighbors", "runs/quickstart", "-k", "1")
    assert len(printed.splitlines()) == 20
