"""`data.target_sentinel` from training to inference, and what the prompt's file remembers of it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import Example, Predictor
from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.checkpoints.frozen.weights import load_weights
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]
SENTINEL = "--gin.data.target_sentinel=True"
LABELS = ("entailment", "not_entailment")


@pytest.fixture(scope="module")
def run_folder(tiny_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentinel") / "run"
    flags = ["--gin.TRAIN_STEPS=4", "--gin.train.eval_every=4", SENTINEL]
    main(["train", *FILES, *tiny_settings, *flags, f"--gin.MODEL_DIR={folder}"])
    return folder


def test_evaluate_and_infer_go_on_as_training_did(run_folder, tmp_path, capsys):
    summary = json.loads((run_folder / "summary.json").read_text())
    _, metadata = load_prompt(run_folder / "prompt_best.safetensors")
    assert metadata.target_sentinel is True
    capsys.readouterr()
    predictions = tmp_path / "predictions.jsonl"
    main(["evaluate", str(run_folder), f"--predictions={predictions}"])
    assert json.loads(capsys.readouterr().out)["score"] == summary["score"]
    answered = [json.loads(line) for line in predictions.open()]
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"inputs": "one two"}\n')
    greedy = [f"--input={lines}", "--gin.predict.method=greedy"]
    main(["infer", str(run_folder), *greedy])
    one = json.loads(capsys.readouterr().out)
    main(["infer", str(run_folder), *greedy, f"--prompts=p={run_folder}"])
    assert json.loads(capsys.readouterr().out)["prediction"] == one["prediction"]
    assert not any("extra_id_0" in row["prediction"][:12] for row in [*answered, one])


@pytest.mark.parametrize("command", ["evaluate", "infer"])
def test_a_prompt_trained_otherwise_is_refused(run_folder, command):
    with pytest.raises(UserError, match="trained with a sentinel.*data.target_sentinel=True"):
        main([command, str(run_folder), "--gin.data.target_sentinel=False"])


def test_members_of_a_population_have_it_in_common(tiny_settings, tmp_path):
    population = "[{'SEED': 0}, {'SEED': 1, 'data.target_sentinel': True}]"
    flags = [f"--gin.POPULATION={population}", f"--gin.MODEL_DIR={tmp_path / 'population'}"]
    with pytest.raises(UserError, match="sets data.target_sentinel.*for all members"):
        main(["train", *FILES, *tiny_settings, *flags])


@pytest.mark.slow
def test_a_predictor_ranks_what_follows_the_sentinel(tiny_weights_file, tiny_vocabulary_file):
    config, params, _ = load_weights(tiny_weights_file)
    vocabulary = Vocabulary(tiny_vocabulary_file)
    prompt = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    predictor = Predictor(config, params, vocabulary)
    predictor.add("with", prompt, target_sentinel=True)
    predictor.add("without", prompt)
    answers = predictor.predict(
        [Example(prompt=name, inputs="a b c", labels=LABELS) for name in ("with", "without")]
    )
    tokens = jnp.asarray([[*vocabulary.encode("a b c"), 1]])
    for sentinel, answer in zip((True, False), answers, strict=True):
        ids = TargetForm(vocabulary, sentinel).encode_labels(LABELS)
        expected = label_log_likelihoods(
            T5(config),
            params,
            tokens,
            Injection(encoder_prompt=jnp.asarray(prompt)[None]),
            jnp.asarray(ids),
        )
        np.testing.assert_allclose(list(answer.scores.values()), expected[0], rtol=1e-4)
    assert answers[0].scores != answers[1].scores
