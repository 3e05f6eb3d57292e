"""TensorFlow and SeqIO, seconds and most of a gigabyte, are for data not seen before."""

import json
import subprocess
import sys

from prompt_tuning.cli.__main__ import main

FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]
PROGRAM = """
import json, sys
from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import status_of
status = status_of(main, sys.argv[1:])
heavy = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "torch")
print(json.dumps({"status": status, "imported": [name for name in heavy if name in sys.modules]}))
"""


def test_a_second_training_on_the_same_data_imports_neither(tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))
    command = ["train", *FILES, *tiny_flags, "--gin.train.tensorboard=True"]
    main(command)
    assert "seqio" in sys.modules, "the data were new"
    cached = sorted((tmp_path / "cache" / "tokens").iterdir())
    assert len(cached) == 2, "a file for training, a file for the development split"
    second = f"--gin.MODEL_DIR={tmp_path / 'second'}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, second],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"status": 0, "imported": []}
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["steps"] == 1
    assert sorted((tmp_path / "cache" / "tokens").iterdir()) == cached
