import errno
import json
import subprocess
import sys
import types

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.training.logging import MetricsFile, TensorBoardFile, WandbRun, read_rows
from prompt_tuning.training.run_folder import RunFolder


def test_metrics_are_cut_back_to_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.write({"step": 1, "loss": 0.1 + 0.2})
    offset = metrics.sync()
    metrics.write({"step": 2, "loss": 0.25})
    metrics.close()
    with path.open("a") as file:
        file.write('{"step": 3, "lo')

    metrics = MetricsFile(path, offset)
    metrics.write({"step": 2, "loss": 0.5})
    metrics.close()
    assert read_rows(path) == [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 0.5}]


def test_a_lost_metrics_file_is_not_filled_with_zeros(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 1000)
    metrics.write({"step": 2})
    metrics.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 2}\n'


def test_an_unfinished_last_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n{"step": 3, "lo')
    assert read_rows(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_broken_line_and_a_missing_file_are_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nstep 2\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is not JSON"):
        read_rows(path)
    with pytest.raises(UserError, match="Can't read the metrics"):
        read_rows(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    "line",
    ["[1]", "3", '{"loss": 1.0}', '{"step": "1"}', "[" * 100_000, "\udcff"],
    ids=lambda c: c[:9],
)
def test_a_line_of_something_else_is_told(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f'{{"step": 1}}\n{line}\n'.encode(errors="surrogateescape"))
    with pytest.raises(
        UserError, match=r"metrics\.jsonl, line 2 (is not JSON|contains .*; expected)"
    ):
        read_rows(path)


def test_a_full_disk_is_one_line(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")

    class FullDisk:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    metrics._file._file = FullDisk()
    with pytest.raises(UserError, match=r"Can't write .*metrics\.jsonl: No space left on device"):
        metrics.write({"step": 1})


def test_tensorboard_reads_the_rows_and_drops_those_a_resumed_run_repeats(tmp_path, monkeypatch):
    first = TensorBoardFile(tmp_path, 0)
    for step, loss in ((1, 0.5), (2, 0.25), (3, 0.125)):
        first.write({"step": step, "loss": loss})
    first.close()
    second = TensorBoardFile(tmp_path, 1)
    second.write({"step": 2, "loss": 4.0, "eval/score": 0.75})
    second.close()

    # TensorBoard's own switch for reading without TensorFlow, which is slow to import.
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [(e.step, e.value) for e in accumulator.Scalars("loss")] == [(1, 0.5), (2, 4.0)]
    assert [(e.step, e.value) for e in accumulator.Scalars("eval/score")] == [(2, 0.75)]


def test_training_imports_no_tensorflow():
    code = (
        "import prompt_tuning.training.loop, prompt_tuning.checkpoints.state, sys;"
        "assert not {'tensorflow', 'flax', 'orbax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.open(tmp_path, settings={"SEED": 1}, config_text="")


def test_wandb_missing_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        WandbRun("prompts", folder)


def test_wandb_gets_rows_and_the_same_page_again(folder, monkeypatch):
    started, logged = [], []

    class Run:
        def log(self, row, step):
            logged.append((row, step))

        def finish(self):
            logged.append("finished")

    wandb = types.ModuleType("wandb")
    wandb.util = types.SimpleNamespace(generate_id=lambda: f"id{len(started)}")
    wandb.init = lambda **options: started.append(options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (1, 2):
        run = WandbRun("prompts", folder)
        run.write({"step": step, "loss": 0.5})
        run.close()
    assert logged == [({"loss": 0.5}, 1), "finished", ({"loss": 0.5}, 2), "finished"]
    assert [options["id"] for options in started] == ["id0", "id0"]
    assert started[0]["project"] == "prompts"
    assert started[0]["config"] == {"SEED": 1}
    json.dumps(started)
