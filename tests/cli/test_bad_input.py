"""What a user can get wrong: one clear line, exit status 2, and nothing on disk lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]


@pytest.fixture
def fails(tiny_flags, tmp_path, capsys):
    """Runs a command that must fail, and returns the line that it prints."""

    def run(*argv: str, command: str = "train", flags: list[str] = tiny_flags) -> str:
        capsys.readouterr()
        assert status_of(main, [command, *FILES, *flags, *argv]) == USER_ERROR
        printed = capsys.readouterr()
        assert printed.out == ""
        lines = printed.err.strip().splitlines()
        assert lines[-1].startswith("prompt-tuning: ")
        assert "Traceback" not in printed.err
        assert "In call to configurable" not in printed.err
        assert sum(line.startswith("prompt-tuning: ") for line in lines) == 1
        return lines[-1]

    return run


def without(flags: list[str], name: str) -> list[str]:
    return [flag for flag in flags if not flag.startswith(f"--gin.{name}=")]


def write_task(folder: Path, train: str, validation: str | None = None) -> str:
    (folder / "RTE").mkdir(parents=True)
    (folder / "RTE" / "train.jsonl").write_text(train)
    (folder / "RTE" / "val.jsonl").write_text(train if validation is None else validation)
    return f"--gin.DATA_DIR={folder}"


ROW = json.dumps({"premise": "a", "hypothesis": "b", "label": "entailment", "idx": 0}) + "\n"


def test_unknown_command(fails):
    line = fails(command="trian")
    assert "Unknown command 'trian'" in line and "'train'" in line


def test_unknown_gin_name(fails):
    line = fails("--gin.sof_prompt.length=3")
    assert "Unknown gin name 'sof_prompt'" in line and "'soft_prompt'" in line


def test_unknown_gin_parameter(fails):
    line = fails("--gin.adafactor.decay=0.8")
    assert "'adafactor' has no parameter 'decay'" in line and "'decay_rate'" in line


def test_unknown_macro(fails):
    line = fails("--gin.PROMT_LENGTH=3")
    assert "Unknown gin macro 'PROMT_LENGTH'" in line and "'PROMPT_LENGTH'" in line


def test_unknown_gin_file(fails):
    line = fails("--gin_file=models/t5_1_1_smal.gin")
    assert "No gin file 'models/t5_1_1_smal.gin'" in line and "'models/t5_1_1_small.gin'" in line


def test_missing_required_macro(fails, tiny_flags):
    line = fails(flags=without(tiny_flags, "MODEL_DIR"))
    assert "MODEL_DIR is required and not set: add --gin.MODEL_DIR=" in line


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            ["models/t5_1_1_small.gin", "tasks/superglue_rte.gin", "runs/train.gin"],
            "Nothing sets train.method: add a --gin_file of prompts/ or methods/, such as "
            "prompts/class_label.gin.",
        ),
        (
            ["models/t5_1_1_small.gin"],
            "Nothing sets train.folder, train.method, train.optimizer: add "
            "--gin_file=runs/train.gin, and a --gin_file of prompts/ or methods/, such as "
            "prompts/class_label.gin.",
        ),
    ],
    ids=["method", "run"],
)
def test_a_forgotten_gin_file(tmp_path, capsys, files, told):
    flags = [f"--gin_file={file}" for file in files]
    flags += [f"--gin.{name}=None" for name in ("INITIAL_CHECKPOINT_PATH", "VOCABULARY_PATH")]
    assert status_of(main, ["train", *flags, f"--gin.MODEL_DIR={tmp_path}"]) == USER_ERROR
    assert capsys.readouterr().err == f"prompt-tuning: {told}\n"


def test_a_parameter_for_a_macro(fails):
    line = fails("--gin.quantization_block=8")
    assert "nothing uses it. Did you mean 'frozen_model.quantization_block'" in line


def test_a_name_is_offered_once(fails):
    assert fails("--gin.SEDE=1").count("'SEED'") == 1


def test_no_configuration(capsys):
    assert status_of(main, ["train"]) == USER_ERROR
    assert "No configuration: give --gin_file=" in capsys.readouterr().err


def test_unknown_task(fails):
    line = fails("--gin.MIXTURE_OR_TASK_NAME=superglue_rtee")
    assert "superglue_rtee" in line and "Did you mean 'superglue_rte'" in line


def test_unknown_model_size(fails):
    line = fails("--gin.frozen_model.architecture=t5_1_1_smal")
    assert "t5_1_1_smal" in line and "t5_1_1_small" in line


def test_unknown_quantization(fails):
    assert "Did you mean 'nf4'?" in fails("--gin.frozen_model.quantization=nf5")


def test_blocks_that_do_not_divide_the_width(fails):
    line = fails("--gin.frozen_model.quantization=int8", "--gin.frozen_model.quantization_block=12")
    assert "quantization_block is 12" in line and "set it to 8" in line


def test_checkpoint_of_another_size(fails):
    line = fails("--gin.frozen_model.architecture=t5_1_1_small")
    assert "its embed_dim is 16, not 512" in line


@pytest.mark.parametrize("length", [0, -3])
def test_prompt_length_not_positive(fails, length):
    assert f"prompt length is {length}" in fails(f"--gin.PROMPT_LENGTH={length}")


def test_batch_size_not_positive(fails):
    assert "BATCH_SIZE is 0; it must be at least 1" in fails("--gin.BATCH_SIZE=0")


@pytest.mark.parametrize(
    ("array", "metadata", "message"),
    [
        (np.ones((3, 17)), {}, "is 17 wide, but the model's embeddings are 16 wide"),
        (np.ones((3, 16, 1)), {}, "shape [3, 16, 1]; expected [length, embed]"),
        (np.where(np.eye(3, 16), np.nan, 1), {}, "3 values that are NaN or infinite, the first at"),
        (np.ones((3, 16)), {"model": "t5_1_1_xxl"}, "was trained for the model 't5_1_1_xxl'"),
        (np.ones((3, 16)), {"vocabulary_hash": "0" * 64}, "with another vocabulary"),
    ],
)
def test_prompt_that_does_not_fit(fails, tmp_path, array, metadata, message):
    file = tmp_path / "prompt.safetensors"
    save_file({"prompt": array.astype(np.float32)}, file, metadata)
    assert message in fails(f"--prompt={file}", command="evaluate")


def test_initial_prompt_of_another_length(fails, tmp_path):
    file, _ = save_prompt(tmp_path / "p", np.ones((5, 16)), PromptMetadata())
    line = fails("--gin_file=prompts/from_file.gin", f"--gin.PROMPT_FILE={file}")
    assert "[5, 16]" in line and "[3, 16]" in line and "PROMPT_LENGTH" in line


def test_no_prompt_file(fails, tmp_path):
    assert "no prompt file" in fails(f"--prompt={tmp_path / 'none.npy'}", command="evaluate")


def test_vocabulary_that_does_not_fit(fails):
    # 100 more sentinels than the model has embeddings.
    line = fails("--gin.vocabulary.extra_ids=300")
    assert "has 384 embeddings" in line and "VOCABULARY_PATH" in line


def test_vocabulary_file_that_is_none(fails, tmp_path):
    (tmp_path / "spiece.model").write_text("not a model")
    line = fails(f"--gin.VOCABULARY_PATH={tmp_path / 'spiece.model'}")
    assert "spiece.model is not a SentencePiece model" in line


@pytest.mark.parametrize("kind", ["absent", "empty_folder", "text"])
def test_checkpoint_path_that_is_none(fails, tmp_path, kind):
    path = tmp_path / "checkpoint"
    if kind == "empty_folder":
        path.mkdir()
    if kind == "text":
        path.write_text("weights")
    assert str(path) in fails(f"--gin.INITIAL_CHECKPOINT_PATH={path}")


def test_weights_with_missing_and_extra_parameters(fails, tmp_path, tiny_weights_file):
    from safetensors import safe_open

    with safe_open(tiny_weights_file, "numpy") as file:
        metadata = file.metadata()
    arrays = load_file(tiny_weights_file)
    arrays["encoder/prefix"] = arrays.pop("decoder/decoder_norm/scale")
    save_file(arrays, tmp_path / "w.safetensors", metadata)
    line = fails(f"--gin.INITIAL_CHECKPOINT_PATH={tmp_path / 'w.safetensors'}")
    assert "decoder/decoder_norm/scale" in line and "encoder/prefix" in line


def test_malformed_jsonl(fails, tmp_path):
    flag = write_task(tmp_path / "data", ROW + "{broken\n")
    assert "train.jsonl:2: not JSON" in fails(flag)


def test_missing_field(fails, tmp_path):
    flag = write_task(tmp_path / "data", ROW + '{"premise": "a", "label": "entailment"}\n')
    line = fails(flag)
    assert "train.jsonl:2" in line and "'hypothesis'" in line


def test_label_outside_the_set(fails, tmp_path):
    flag = write_task(tmp_path / "data", ROW + ROW.replace("entailment", "maybe"))
    line = fails(flag)
    assert "train.jsonl:2" in line and "'maybe'" in line and "not_entailment" in line


def test_empty_split(fails, tmp_path):
    line = fails(write_task(tmp_path / "data", ROW, validation=""))
    assert "'validation'" in line and "no examples" in line


def test_no_data_folder(fails, tmp_path):
    assert str(tmp_path / "none") in fails(f"--gin.DATA_DIR={tmp_path / 'none'}")


def test_malformed_line_to_infer(fails, tmp_path, tiny_prompt_file):
    (tmp_path / "in.jsonl").write_text('{"inputs": "a"}\n{"premise": "b"\n')
    line = fails(
        f"--prompt={tiny_prompt_file}",
        f"--input={tmp_path / 'in.jsonl'}",
        f"--output={tmp_path / 'out.jsonl'}",
        command="infer",
    )
    assert "in.jsonl:2: not JSON" in line


def test_infer_never_writes_over_answers(fails, tmp_path, tiny_prompt_file):
    (tmp_path / "in.txt").write_text("a\n")
    (tmp_path / "out.jsonl").write_text("precious\n")
    line = fails(
        f"--prompt={tiny_prompt_file}",
        f"--input={tmp_path / 'in.txt'}",
        f"--output={tmp_path / 'out.jsonl'}",
        command="infer",
    )
    assert "File exists" in line
    assert (tmp_path / "out.jsonl").read_text() == "precious\n"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def some_run(tiny_settings, tmp_path_factory) -> Path:
    """The folder of a run that has ended; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert status_of(main, ["train", *FILES, *tiny_settings, f"--gin.MODEL_DIR={folder}"]) == 0
    return folder


@pytest.fixture
def finished_run(some_run, tmp_path) -> Path:
    """The folder of a run that has ended, where `tiny_flags` would run."""
    return Path(shutil.copytree(some_run, tmp_path / "run"))


def test_run_folder_of_another_config(fails, finished_run, tiny_flags):
    before = snapshot(finished_run)
    line = fails("--gin.LEARNING_RATE=0.1")
    assert "LEARNING_RATE is 0.3 there, 0.1 now" in line and "--overwrite" in line
    assert snapshot(finished_run) == before
    argv = ["train", *FILES, *tiny_flags, "--gin.LEARNING_RATE=0.1", "--overwrite"]
    assert status_of(main, argv) == 0


def test_folder_that_is_no_run(fails, tmp_path):
    assert "is not a run folder" in fails(str(tmp_path), command="evaluate")


def test_run_folder_of_other_data(fails, tiny_flags, tmp_path, tiny_superglue):
    """The same path, but other rows in it: the settings alone don't tell."""
    data = Path(shutil.copytree(tiny_superglue, tmp_path / "data"))
    argv = [f"--gin.DATA_DIR={data}"]
    assert status_of(main, ["train", *FILES, *tiny_flags, *argv]) == 0
    before = snapshot(tmp_path / "run")
    rows = (data / "RTE" / "train.jsonl").read_text()
    (data / "RTE" / "train.jsonl").write_text(rows + ROW)
    assert "contents of the data is" in fails(*argv)
    assert snapshot(tmp_path / "run") == before


def test_full_disk_while_training(fails, tiny_flags, tmp_path, monkeypatch):
    """The run stops with one line; with space again, the same command ends it."""
    flags = ["--gin.TRAIN_STEPS=4", "--gin.train.checkpoint_every=1", "--gin.train.eval_every=1"]
    writes = iter(range(100))

    def fsync(descriptor):
        if next(writes) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        assert "no space left" in fails(*flags).lower()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert status_of(main, ["train", *FILES, *tiny_flags, *flags]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_while_writing_predictions(fails, tiny_prompt_file):
    line = fails(f"--prompt={tiny_prompt_file}", "--predictions=/dev/full", command="evaluate")
    assert "no space" in line.lower()


def test_predictions_into_a_missing_folder(fails, tmp_path, tiny_prompt_file):
    path = tmp_path / "none" / "p.jsonl"
    line = fails(f"--prompt={tiny_prompt_file}", f"--predictions={path}", command="evaluate")
    assert f"Can't write {path}: No such file or directory" in line


def test_ranking_a_task_without_labels(fails, tiny_prompt_file):
    flags = ["--gin_file=tasks/superglue_wsc.gin", "--gin.predict.method=rank"]
    line = fails(*flags, f"--prompt={tiny_prompt_file}", command="evaluate")
    assert "superglue_wsc" in line and "'greedy'" in line


def test_unwritable_folder(fails, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = fails(f"--gin.MODEL_DIR={tmp_path / 'file' / 'run'}")
    assert "file is a file; MODEL_DIR must be a folder." in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_batch_that_devices_cannot_share(tiny_flags):
    command = [sys.executable, "-m", "prompt_tuning.cli", "train", *FILES, *tiny_flags]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == USER_ERROR
    assert "2 examples can't be divided evenly among 4 devices" in done.stderr
    assert "multiple of 4" in done.stderr
    assert "Traceback" not in done.stderr
