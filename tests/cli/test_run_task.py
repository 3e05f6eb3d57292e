"""What `task.json` keeps of several files and tasks: where they were, and their labels."""

import pytest

from prompt_tuning.cli import configurables, gin_config, run_task
from prompt_tuning.recipes import task_file

MINE = """
MIXTURE_OR_TASK_NAME = @mixture()
TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 8}
BATCH_SIZE = 2
data.mixture_or_task = %MIXTURE_OR_TASK_NAME
data.feature_lengths = %TASK_FEATURE_LENGTHS
data.batch_size = %BATCH_SIZE
mixture.tasks = [@films/user_files(), @things/user_files()]
films/user_files.train_file = 'films.csv'
films/user_files.input_template = 'review: {text}'
things/user_files.train_file = ['things.csv', 'more.csv']
things/user_files.input_template = 'news: {text}'
user_files.target_template = '{label}'
"""


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    """Loads a mixture of files that lie in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text(MINE)
    for name, labels in {"films": "yn", "things": "ab", "more": "ac"}.items():
        rows = [f"text {label},{label}" for label in labels]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    return lambda: gin_config.load([str(tmp_path / "mine.gin")])


def recorded_of(data):
    """What `described` records of them, without a model."""
    return {
        "paths": run_task.places(),
        "tasks": [task_file._described(task) for task in data.tasks],
    }


def test_a_moved_mixture_of_files_keeps_its_labels_and_finds_them(mixture, tmp_path, monkeypatch):
    mixture()
    recorded = recorded_of(configurables.data())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    mixture()
    run_task.apply("run", recorded, [])
    films, things = configurables.data().tasks
    assert (films.labels, things.labels) == (("n", "y"), ("a", "b", "c"))
    assert len(list(things.examples("train"))) + len(list(things.examples("validation"))) == 4
    # Without the files labels are known all the same.
    for name in ("films", "things", "more"):
        (tmp_path / f"{name}.csv").unlink()
    mixture()
    run_task.apply("run", recorded, [])
    films, things = configurables.data().tasks
    assert (films.labels, things.labels) == (("n", "y"), ("a", "b", "c"))


def test_the_flags_files_are_believed(mixture, tmp_path, monkeypatch):
    mixture()
    recorded = recorded_of(configurables.data())
    monkeypatch.chdir(tmp_path.parent)
    other = ("things/user_files.train_file", "['other.csv']")
    gin_config.load([str(tmp_path / "mine.gin")], [other])
    run_task.apply("run", recorded, [])
    assert run_task.files()["things/user_files.train_file"] == ["other.csv"]
    assert run_task.files()["films/user_files.train_file"] == str(tmp_path / "films.csv")
