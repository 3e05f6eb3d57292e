"""Trials: small inputs that once failed, each a test that bears its number.

They run commands as a user does, on TinyWorld's smallest model and six rows of a CSV.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import status_of

ROWS = """text,label
the dog is tall .,yes
the cat is tall .,no
a dog ran .,yes
a cat ran .,no
the dog sat .,yes
the cat sat .,no
"""


@dataclass(frozen=True)
class Result:
    """What a command left behind: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The last line on stderr, where a user's mistake is reported."""
        return self.err.strip().splitlines()[-1]


def flags(rows: Path, **settings: object) -> list[str]:
    """A short training run on a user's file; `settings` are gin bindings, `.` written `__`."""
    given = {
        "TRAIN_FILE": rows,
        "VALIDATION_FILE": rows,
        "INPUT_TEMPLATE": "{text}",
        "TARGET_TEMPLATE": "{label}",
        "PROMPT_LENGTH": 3,
        "BATCH_SIZE": 2,
        "TRAIN_STEPS": 4,
        "train.eval_every": 2,
        "train.tensorboard": False,
    } | {name.replace("__", "."): value for name, value in settings.items()}
    files = "models/tinyworld_tiny tasks/user_files prompts/sampled_vocabulary runs/train"
    return [
        *(f"--gin_file={file}.gin" for file in files.split()),
        *(f"--gin.{name}={value}" for name, value in given.items()),
    ]


@pytest.fixture
def rows(tmp_path) -> Path:
    """The six rows as `r.csv`."""
    path = tmp_path / "r.csv"
    path.write_text(ROWS)
    return path


@pytest.fixture
def train_flags(rows) -> Callable[..., list[str]]:
    """`flags` of the test's own `r.csv`."""
    return lambda **settings: flags(settings.pop("rows", rows), **settings)


@pytest.fixture
def command(capfd) -> Callable[..., Result]:
    """Runs `prompt-tuning` with these arguments in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        status = status_of(main, [str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return Result(status, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "r.csv").write_text(ROWS)
    main(["train", *flags(folder / "r.csv"), f"--gin.MODEL_DIR={folder / 'run'}"])
    return folder


@pytest.fixture
def finished_run(_finished, tmp_path) -> Path:
    """A copy of a finished run of four steps, without its `r.csv`, which stays elsewhere."""
    return Path(shutil.copytree(_finished / "run", tmp_path / "run"))
