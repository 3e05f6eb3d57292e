"""The small English T5: its two stages shrunken, and its table and figures."""

import csv
import json

import numpy as np
import pytest

from prompt_tuning.checkpoints.frozen.weights import flatten, load_weights
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import provenance
from prompt_tuning.sweeps.store import SweepStore


@pytest.fixture
def plot(load_experiment):
    return load_experiment("real_text", "plot")


def finish(runs, method, task, seed, score):
    """Records a run as a sweep does, with two evaluations."""
    folder = runs / f"real_text_{method}"
    run = folder / "parts" / f"{task}-{seed}"
    run.mkdir(parents=True)
    rows = [{"step": step, "eval/score": score * step / 10} for step in (0, 10)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    SweepStore(folder).finish(
        f"{task}-{seed}",
        {
            "settings": {"SEED": seed},
            "folder": f"parts/{task}-{seed}",
            "versions": provenance({}, "2026-01-01"),
            "summary": {
                "task": task,
                "model": "english",
                "score": score,
                "metrics": {"accuracy": score},
            },
        },
    )


def test_the_majority_is_that_of_the_training_examples(plot, tmp_path):
    folder = tmp_path / "CB"
    folder.mkdir()
    labels = {"train": ["neutral"] * 2 + ["entailment"], "val": ["entailment"] * 3 + ["neutral"]}
    for split, given in labels.items():
        rows = [
            {"premise": "a", "hypothesis": "b", "label": label, "idx": i}
            for i, label in enumerate(given)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = plot.majority_class(get_task("superglue_cb"), str(tmp_path))
    assert row["accuracy"] == 0.25
    # F1 of "neutral" is 2/5 (precision 1/4, recall 1); of the other two it is 0.
    assert row["macro_f1"] == pytest.approx(0.4 / 3)
    assert row["score"] == pytest.approx((row["accuracy"] + row["macro_f1"]) / 2)


def test_scores_and_curves_are_written_beside_the_majority(plot, tmp_path, tiny_data, capsys):
    for method, score in (("prompt_tuning", 0.5), ("model_tuning", 0.75)):
        for task in ("superglue_rte", "glue_sst2"):
            for seed in (0, 1):
                finish(tmp_path, method, task, seed, score)
    output = tmp_path / "out"
    argv = ["--data_dir", str(tiny_data), "--runs", str(tmp_path), "--output", str(output)]
    plot.main(argv)
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| task | majority class | prompt tuning | model tuning |"
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| superglue_rte", "| glue_sst2"]
    assert all(line.endswith("| 0.500 ± 0.000 | 0.750 ± 0.000 |") for line in table[2:4])
    assert (output / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (output / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 2 * 2 * 2 * 2
    assert {row["method"] for row in curves} == {"prompt tuning", "model tuning"}


def test_a_task_that_one_method_lacks_is_told(plot, tmp_path, tiny_data):
    finish(tmp_path, "prompt_tuning", "superglue_rte", 0, 0.5)
    finish(tmp_path, "prompt_tuning", "superglue_cb", 0, 0.5)
    finish(tmp_path, "model_tuning", "superglue_rte", 0, 0.5)
    with pytest.raises(UserError, match="No run of model tuning on superglue_cb"):
        plot.main(["--data_dir", str(tiny_data), "--runs", str(tmp_path)])


@pytest.mark.slow
def test_the_model_is_made_in_two_stages(checkout, tmp_path, tiny_vocabulary_file, monkeypatch):
    monkeypatch.chdir(checkout)
    words = "a the cat dog bird man sat ran sang fell on in under mat tree house".split()
    rng = np.random.default_rng(0)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(" ".join(rng.choice(words, 40)) + ".\n" for _ in range(400)))

    def stage(name, *more):
        """Runs a stage with twenty small batches, and returns its weights and losses."""
        shrunken = {
            "CORPUS": corpus,
            "VOCABULARY_PATH": tiny_vocabulary_file,
            "BATCH_SIZE": 4,
            "TRAIN_STEPS": 20,
            "MODEL_DIR": tmp_path / name,
            "corpus.held_out_share": 0.1,
            "objective.held_out_batches": 2,
            "train.eval_every": 20,
            "cosine_decay.warmup_steps": 5,
        }
        flags = [f"--gin.{key}={value}" for key, value in shrunken.items()]
        main(["pretrain", "--gin_file=experiments/real_text/pretrain.gin", *more, *flags])
        config, weights, _ = load_weights(tmp_path / name / "weights.safetensors")
        rows = [json.loads(row) for row in (tmp_path / name / "metrics.jsonl").open()]
        return flatten(weights), config, [row["eval/loss"] for row in rows if "eval/loss" in row]

    corrupted, config, losses = stage("span_corruption")
    assert (config.embed_dim, config.num_encoder_layers, config.tie_embeddings) == (128, 4, True)
    assert losses[-1] < losses[0]
    adapted, _, losses = stage(
        "lm",
        "--gin_file=experiments/real_text/lm_adapt.gin",
        f"--gin.INITIAL_CHECKPOINT_PATH={tmp_path / 'span_corruption' / 'weights.safetensors'}",
    )
    assert losses[-1] < losses[0]
    assert {name: array.shape for name, array in adapted.items()} == {
        name: array.shape for name, array in corrupted.items()
    }
    settings = json.loads((tmp_path / "lm" / "settings.json").read_text())
    assert "lm_adaptation" in json.dumps(settings)
