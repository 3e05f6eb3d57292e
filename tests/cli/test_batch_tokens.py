"""BATCH_TOKENS, data.num_lengths and matmul_dtype='auto' from the command line to a score."""

import json

import pytest

from prompt_tuning.cli import gin_config, loading
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]


def test_training_and_evaluation_by_tokens(tiny_flags, tmp_path, capsys):
    flags = ["--gin.BATCH_TOKENS=200", "--gin.data.num_lengths=2"]
    flags += ["--gin.TRAIN_STEPS=2", "--gin.train.log_every=1", "--gin.train.accumulation_steps=2"]
    flags += ["--gin.frozen_model.matmul_dtype='auto'"]
    main(["train", *FILES, *tiny_flags, *flags])
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    # Inputs are cut to 40 tokens, so 4 rows of 43 fit, and 4 is a multiple of 2 microbatches.
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert {row["step"] for row in rows} >= {1, 2}
    capsys.readouterr()
    main(["evaluate", str(run)])
    assert json.loads(capsys.readouterr().out)["score"] == summary["score"]


def test_a_number_of_lengths_must_be_one(tiny_flags):
    with pytest.raises(UserError, match="num_lengths is 0"):
        main(["train", *FILES, *tiny_flags, "--gin.data.num_lengths=0"])


def test_an_example_counts_its_prompt(tiny_flags, capsys):
    """And a folder in which that was a number of its own still resumes."""
    flags = [*FILES, *tiny_flags, "--gin.BATCH_TOKENS=300", "--gin.TRAIN_STEPS=1"]
    args = Parser("train", "").parse([*flags, "--gin.PROMPT_LENGTH=20"])
    gin_config.load(args.gin_file, args.gin_bindings)
    rows, length = loading.prepare().batch(0)["encoder_input_tokens"].shape
    assert rows == 300 // (length + 20) < 300 // length

    main(["train", *flags, "--gin.data.extra_tokens=100"])
    capsys.readouterr()
    assert not main(["train", *flags])
    assert "data.extra_tokens is None now and was 100" in capsys.readouterr().err
