"""`prompt-tuning pretrain`: a tiny model learns a tiny text, and a stopped run ends as others."""

import json
import re

import numpy as np
import pytest

from prompt_tuning.checkpoints.frozen.weights import flatten, load_weights
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.corpora import PretrainingStream, c4_text
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.recipes import pretraining
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

WORDS = "a the cat dog bird man sat ran sang fell on in under mat tree house".split()


@pytest.fixture(scope="module")
def flags(tmp_path_factory, tiny_vocabulary_file):
    """A corpus of three hundred lines, and a model of one layer."""
    corpus = tmp_path_factory.mktemp("text") / "corpus.txt"
    rng = np.random.default_rng(0)
    corpus.write_text("".join(" ".join(rng.choice(WORDS, 9)) + ".\n" for _ in range(300)))
    settings = {
        "CORPUS": corpus,
        "VOCABULARY_PATH": tiny_vocabulary_file,
        "TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 8},
        "BATCH_SIZE": 4,
        "TRAIN_STEPS": 20,
        "LEARNING_RATE": 10.0,
        "corpus.held_out_share": 0.1,
        "objective.held_out_batches": 2,
        "objective.model_name": "mine",
        "train.eval_every": 10,
        "train.checkpoint_every": 5,
        "train.log_every": 10,
        "train.tensorboard": False,
        "new_model.embed_dim": 16,
        "new_model.num_heads": 2,
        "new_model.head_dim": 8,
        "new_model.mlp_dim": 32,
        "new_model.num_encoder_layers": 1,
        "new_model.num_decoder_layers": 1,
    }
    return [f"--gin.{name}={value}" for name, value in settings.items()]


@pytest.mark.slow
def test_a_run_says_what_it_trains(flags, tmp_path, capsys):
    main(["pretrain", *flags, "--gin.TRAIN_STEPS=1", f"--gin.MODEL_DIR={tmp_path / 'run'}"])
    told = capsys.readouterr().err
    for line in (
        r"\[\d+ s\] Loading the model \.\.\.",
        r"Method +all weights, [\d,]+ trainable parameters",
        r"Optimizer +adafactor, learning rate ",
        r"Task +span_corruption on [\d,]+ tokens",
        r"Batch +4 pieces of \d+ tokens; 1 steps?, 0\.\d epochs",
        r"\[\d+ s\] Compiling the training step \.\.\.",
    ):
        assert re.search(f"^{line}", told, re.MULTILINE), (line, told)


@pytest.fixture(scope="module")
def run_folder(flags, tmp_path_factory):
    """A run of twenty steps; not to be changed."""
    folder = tmp_path_factory.mktemp("run") / "run"
    main(["pretrain", *flags, f"--gin.MODEL_DIR={folder}"])
    return folder


def test_the_loss_falls(run_folder):
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").open()]
    held_out = {row["step"]: row["eval/loss"] for row in rows if "eval/loss" in row}
    assert list(held_out) == [0, 10, 20]
    assert held_out[20] < held_out[10] < held_out[0] - 0.1
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == [10, 20] and losses[20] < losses[10]
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["score"] == -held_out[20]
    assert (summary["objective"], summary["model"]) == ("span_corruption", "mine")
    assert summary["frozen_parameters"] == 0 and summary["trained_parameters"] > 0


def test_the_weights_are_a_model_with_its_vocabulary_beside_it(run_folder, tiny_vocabulary_file):
    config, params, metadata = load_weights(run_folder / "weights.safetensors")
    vocabulary = Vocabulary(run_folder / "spiece.model")
    assert (config.name, config.embed_dim, config.num_decoder_layers) == ("mine", 16, 1)
    # The rows are the vocabulary's, rounded up.
    assert config.vocab_size % 128 == 0 and 0 <= config.vocab_size - len(vocabulary) < 128
    assert metadata["vocabulary_hash"] == vocabulary.hash == Vocabulary(tiny_vocabulary_file).hash
    assert metadata["vocabulary"] == "tiny.model" and metadata["step"] == "20"
    summary = json.loads((run_folder / "summary.json").read_text())
    assert sum(leaf.size for leaf in flatten(params).values()) == summary["trained_parameters"]


def test_a_stopped_run_ends_with_the_same_weights(run_folder, flags, tmp_path, monkeypatch):
    argv = ["pretrain", *flags, f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    batch = PretrainingStream.batch

    def stop_at_12(self, step):
        if step == 12:
            raise RuntimeError("the power fails")
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainingStream, "batch", stop_at_12)
        with pytest.raises(RuntimeError, match="the power fails"):
            main(argv)
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    seen = []
    monkeypatch.setattr(
        PretrainingStream, "batch", lambda self, step: seen.append(step) or batch(self, step)
    )
    main(argv)
    assert 9 not in seen and 10 in seen and 19 in seen, "it went on from the checkpoint"
    whole, resumed = (
        (folder / "weights.safetensors").read_bytes() for folder in (run_folder, tmp_path / "run")
    )
    assert whole == resumed


@pytest.mark.slow
def test_more_steps_end_with_the_same_weights(run_folder, flags, tmp_path):
    argv = ["pretrain", *flags, f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    main([*argv, "--gin.TRAIN_STEPS=10"])
    main(argv)
    whole, continued = (
        (folder / "weights.safetensors").read_bytes() for folder in (run_folder, tmp_path / "run")
    )
    assert whole == continued


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"CORPUS": "no.txt"}, "Text file no.txt does not exist"),
        ({"CORPUS": "[]"}, "CORPUS is empty"),
        ({"CORPUS": "empty.txt"}, "There is no text: every document is empty"),
        ({"CORPUS": "short.txt"}, "pre-training with inputs of 16 tokens needs at least"),
        ({"CORPUS": "c4", "DATA_DIR": "here"}, "C4 comes from TFDS: 'tfds:FOLDER'"),
        ({"corpus.held_out_share": 1.0}, "The held-out share is 1.0; expected one such as 0.01"),
        ({"corpus.held_out_share": 1e-9}, "Too little text is held out"),
        ({"OBJECTIVE": "span_coruption"}, "objective 'span_coruption'; expected span_corruption or"
         " lm_adaptation. Did you mean 'span_corruption'"),
        ({"TASK_FEATURE_LENGTHS": {"inputs": 2, "targets": 8}}, "inputs of 2 tokens is not"),
        ({"TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 1}}, "targets of 1 tokens is not"),
        ({"TASK_FEATURE_LENGTHS": {"inputs": 16}}, "expected a length in tokens for both"),
        ({"BATCH_SIZE": 0}, "BATCH_SIZE is 0"),
        ({"new_model.architecture": "t5_1_1_smal"}, "Did you mean 't5_1_1_small'"),
        ({"new_model.num_heads": 0}, "new_model.num_heads is 0"),
        ({"new_model.relative_bias_stddev": -1.0}, "new_model.relative_bias_stddev is -1.0"),
        ({"INITIAL_CHECKPOINT_PATH": "tinyworld_small"}, "has 1408 embeddings; set VOCABULARY"),
        ({"INITIAL_CHECKPOINT_PATH": "tinyworld_mini", "frozen_model.quantization": "int8"},
         "quantized weights can't be trained: unset it"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(flags, tmp_path, monkeypatch, capsys, changes, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "short.txt").write_text("a cat\n")
    argv = [*flags, "--gin.MODEL_DIR=run", *(f"--gin.{n}={v}" for n, v in changes.items())]
    assert status_of(main, ["pretrain", *argv]) == USER_ERROR
    # But for what is being read.
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1 and told in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_prompt_needs_a_model(tiny_flags, capsys):
    files = ("runs/train", "tasks/superglue_rte", "prompts/class_label")
    argv = [*(f"--gin_file={name}.gin" for name in files), *tiny_flags]
    assert status_of(main, ["train", *argv, "--gin.INITIAL_CHECKPOINT_PATH=None"]) == USER_ERROR
    assert "INITIAL_CHECKPOINT_PATH is None; set it to one" in capsys.readouterr().err


def test_c4_is_scored_on_its_own_validation_split():
    found = pretraining.corpus("c4/realnewslike", data_dir="tfds:folder")
    expected = [
        c4_text(split, config="realnewslike", data_dir="folder")
        for split in ("train", "validation")
    ]
    assert [found.train.name, found.held_out.name] == [text.name for text in expected]
    assert found.shuffled
