"""The script that pre-trains TinyWorld's models: every document fits, phases are as they say."""

import argparse
import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import sentencepiece

from prompt_tuning.checkpoints.frozen.weights import load_weights
from prompt_tuning.models.initialization import init_params

SCRIPT = Path(__file__).parents[2] / "experiments" / "tinyworld" / "pretrain.py"


@pytest.fixture(scope="module")
def pretrain():
    spec = importlib.util.spec_from_file_location("tinyworld_pretrain", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as Python does for a script
        spec.loader.exec_module(module)
    module.CHUNK_DOCUMENTS = 512
    return module


@pytest.fixture(scope="module")
def phases(pretrain):
    return pretrain.make_phases(
        argparse.Namespace(
            size="small",
            span_corruption_steps=3,
            lesson_steps=2,
            mixture_steps=4,
            grow_from=None,
        )
    )


@pytest.fixture(scope="module")
def vocabulary(pretrain):
    model = str(pretrain.ASSETS / "tinyworld.model")
    return sentencepiece.SentencePieceProcessor(model_file=model)


def test_phases_are_span_corruption_the_lessons_and_the_mixture(pretrain, phases):
    lessons = [lesson.name for lesson in pretrain.corpus.CURRICULUM]
    assert [phase.name for phase in phases] == ["span corruption", *lessons, "mixture"]
    assert [phase.rate(phase.steps) for phase in phases[:-1]] == [1.0] * len(phases[:-1])
    assert phases[-1].rate(4) == pytest.approx(0.02)
    assert all(phase.goals for phase in phases[1:-1])


def test_a_grown_model_reads_the_lessons_it_is_told_and_the_mixture(pretrain):
    steps = {"span_corruption_steps": 3, "lesson_steps": 2, "mixture_steps": 4}
    grown = argparse.Namespace(**steps, size="base", grow_from="small", lessons=["colors"])
    assert [phase.name for phase in pretrain.make_phases(grown)] == ["colors", "mixture"]


def test_every_document_fits_a_bucket_and_batches_have_their_shapes(pretrain, phases, vocabulary):
    shapes = {(512 // sum(bucket), *bucket) for bucket in pretrain.BUCKETS}
    for phase in phases:
        examples = pretrain.examples(phase, vocabulary.encode, seed=0, vocab_size=1408)
        for batch in itertools.islice(pretrain.batches(examples, tokens=512), 10):
            inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
            assert (*inputs.shape, targets.shape[1]) in shapes
            np.testing.assert_array_equal(batch["decoder_input_tokens"][:, 1:], targets[:, :-1])
            assert np.all(batch["decoder_loss_weights"] == (targets != 0))
            assert inputs.max() < 1408


def test_span_corruption_has_sentinels_and_lm_adaptation_has_none(pretrain, phases, vocabulary):
    for phase, has_sentinels in ((phases[0], True), (phases[-1], False)):
        examples = pretrain.examples(phase, vocabulary.encode, seed=0, vocab_size=1408)
        for inputs, _ in itertools.islice(examples, 50):
            assert any(token >= 1308 for token in inputs) == has_sentinels


@pytest.mark.slow
def test_a_grown_model_computes_what_the_small_one_does(pretrain):
    small, large = (
        dataclasses.replace(pretrain.size_config(*size), vocab_size=40)
        for size in (("small_test", 12, 2, 1), ("large_test", 32, 4, 2))
    )
    fresh = init_params(large, jax.random.key(1))
    trained = init_params(small, jax.random.key(0), relative_bias_stddev=3.0)
    grown = pretrain.grow(trained, small, fresh, large)
    tokens = jax.random.randint(jax.random.key(2), (2, 9), 1, 40)
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens[:, :5]}
    weights = jax.random.normal(jax.random.key(3), (2, 5, 40))

    @jax.jit
    def run(trained, grown):
        def weighted_logits(params):
            logits = pretrain.T5(large).apply({"params": params}, batch)
            return jax.numpy.sum(logits * weights), logits

        before = pretrain.T5(small).apply({"params": trained}, batch)
        return before, *jax.grad(weighted_logits, has_aux=True)(grown)

    before, gradient, after = run(trained, grown)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    # And everything that is silent at first learns from the first step on.
    layers = gradient["decoder"]["layers"]
    for silent in (layers["mlp"]["wo"], layers["self_attention"]["out"]):
        assert all(np.any(silent["kernel"][layer] != 0) for layer in range(2))
    assert np.any(gradient["token_embedder"]["embedding"][:, 12:] != 0)


@pytest.mark.slow
def test_a_continued_model_keeps_its_learning_curve_and_commands(pretrain, monkeypatch, tmp_path):
    options = ["--size=tiny", "--grow_from=tiny", "--mixture_steps=2", "--tokens_per_batch=128"]
    monkeypatch.setattr("sys.argv", ["pretrain.py", *options, f"--output={tmp_path}"])
    monkeypatch.setattr(pretrain, "make_probe", lambda *_: lambda params, exercises: {})
    pretrain.main()
    before = (pretrain.RESULTS / "tiny.jsonl").read_text().splitlines()
    *kept, last = (tmp_path / "tiny.jsonl").read_text().splitlines()
    assert kept == before
    assert json.loads(last)["step"] == json.loads(before[-1])["step"] + 2
    _, trained, metadata = load_weights(tmp_path / "tinyworld_tiny.safetensors")
    _, shipped, first = load_weights(pretrain.ASSETS / "tinyworld_tiny.safetensors")
    assert metadata["command"].splitlines()[:-1] == first["command"].splitlines()
    moved = jax.tree.map(lambda new, old: np.any(new != old), trained, shipped)
    assert any(jax.tree.leaves(moved))
