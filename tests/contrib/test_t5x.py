"""Prompts of this package under T5X: a training of each on the same batches, and its parts."""

import csv
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning.checkpoints.adapters.t5x_prompts import VARIABLE, load_t5x_prompt
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.contrib.t5x.parameters import frozen_to_t5x, trained_to_t5x
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import prompt_loss_fn

pytest.importorskip("t5x", reason="T5X isn't installed; docs/t5x.md tells how")

from t5x import adafactor, decoding

from prompt_tuning.contrib.t5x import checkpoint, model

pytestmark = pytest.mark.slow

METHODS = {
    "soft_prompt": pt.soft_prompt(length=3, initializer=pt.sampled_vocabulary()),
    "lora": pt.lora(rank=2),
}


ALL = pytest.mark.parametrize("name", METHODS, scope="module")
PROMPT = pytest.mark.parametrize("name", ["soft_prompt"], scope="module")
LORA = pytest.mark.parametrize("name", ["lora"], scope="module")


@pytest.fixture(scope="module")
def base() -> pt.Base:
    return pt.load("tinyworld_nano", "tinyworld")


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    inputs = rng.integers(3, 200, (4, 10)) * (np.arange(10) < np.array([[10], [7], [5], [1]]))
    targets = rng.integers(3, 200, (4, 3)) * (np.arange(3) < np.array([[3], [2], [1], [3]]))
    shifted = np.roll(targets, 1, axis=1)
    shifted[:, 0] = 0
    return {
        "encoder_input_tokens": jnp.asarray(inputs, jnp.int32),
        "decoder_input_tokens": jnp.asarray(shifted, jnp.int32),
        "decoder_target_tokens": jnp.asarray(targets, jnp.int32),
        "decoder_loss_weights": jnp.asarray(targets > 0, jnp.float32),
    }


@pytest.fixture(scope="module")
def tuned(base, name):
    """A model of T5X, its parameters, and the method's."""
    tuned = model.PromptTunedModel(
        base,
        METHODS[name],
        adafactor.Adafactor(factored=False),
        loss_normalizing_factor="NUM_REAL_TARGET_TOKENS",
        z_loss=1e-4,
    )
    like = tuned.method.init(jax.random.key(1), {"encoder_input_tokens": jnp.ones((1, 1))})
    leaves, structure = jax.tree.flatten(like)
    # Not the initial values, some of which are zeros.
    rng = np.random.default_rng(1)
    drawn = [leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32) for leaf in leaves]
    trained = jax.tree.unflatten(structure, drawn)
    params = frozen_to_t5x(base.params, base.config)
    for name, tree in trained_to_t5x(trained).items():
        params[name] = {**params.get(name, {}), **tree}
    return tuned, params, trained


@ALL
def test_loss_is_ours_and_only_the_method_has_a_gradient(tuned, base, batch):
    tuned, params, trained = tuned
    of_t5x = jax.jit(jax.value_and_grad(lambda params: tuned.loss_fn(params, batch, None)[0]))
    loss, gradient = of_t5x(params)
    ours = prompt_loss_fn(base.model, tuned.method, LossOptions(z_loss=1e-4))

    def mean(trained):
        return jnp.divide(*ours(trained, base.params, batch, jax.random.key(0)))

    expected, of_method = jax.jit(jax.value_and_grad(mean))(trained)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    whole = dict(jax.tree_util.tree_leaves_with_path(gradient))
    for path, leaf in jax.tree_util.tree_leaves_with_path(trained_to_t5x(of_method)):
        np.testing.assert_allclose(whole.pop(path), leaf, rtol=1e-4, atol=1e-5)
    assert not any(np.any(leaf) for leaf in whole.values())


@ALL
def test_predictions_are_those_of_our_greedy_decoding(tuned, base, batch):
    tuned, params, trained = tuned
    found = jax.jit(tuned.predict_batch)(params, batch)
    options = DecodingOptions(max_length=batch["decoder_input_tokens"].shape[1])
    injection = tuned.method.apply(trained, batch)
    inputs = batch["encoder_input_tokens"]
    expected = generate(base.model, base.params, inputs, injection, options)
    np.testing.assert_array_equal(found, expected)


@PROMPT
def test_beams_score_as_their_log_likelihoods(tuned, base, batch):
    tuned, params, _ = tuned
    search = functools.partial(decoding.beam_search, alpha=0.0)
    beam_searching = model.PromptTunedModel(base, METHODS["soft_prompt"], decode_fn=search)
    decode = functools.partial(
        beam_searching.predict_batch_with_aux, num_decodes=2, return_all_decodes=True
    )
    beams, aux = jax.jit(decode)(params, batch)
    assert beams.shape == (4, 2, 3)
    score = jax.jit(tuned.score_batch)
    for beam in range(2):
        targets = beams[:, beam]
        shifted = jnp.roll(targets, 1, axis=1).at[:, 0].set(0)
        scored = {
            **batch,
            "decoder_input_tokens": shifted,
            "decoder_target_tokens": targets,
            "decoder_loss_weights": (targets > 0).astype(jnp.float32),
        }
        np.testing.assert_allclose(score(params, scored), aux["scores"][:, beam], atol=1e-4)


@PROMPT
def test_packed_examples_are_refused(tuned, batch):
    tuned, params, _ = tuned
    packed = {**batch, "encoder_segment_ids": jnp.ones_like(batch["encoder_input_tokens"])}
    with pytest.raises(UserError, match="pack = False"):
        tuned.loss_fn(params, packed, None)


@LORA
def test_any_method_is_written_and_read(tuned, base, tmp_path):
    tuned, _, trained = tuned
    adapter = pt.Adapter(method=tuned.method, trained=trained, metadata=pt.PromptMetadata())
    written = checkpoint.write_checkpoint(tmp_path, base, adapter, step=7)
    assert written == tmp_path / "checkpoint_7"
    found = checkpoint.read_adapter(written, base, lambda base: tuned.method)
    jax.tree.map(np.testing.assert_array_equal, found.trained, trained)
    with pytest.raises(UserError, match="unexpected|missing"):
        checkpoint.read_adapter(written, base, pt.ia3())


def test_a_start_without_a_frozen_parameter_is_refused():
    wanted = {"target": {"encoder": {"norm": 0, "prompt": {"prompt": {"prompt": 0}}}}}
    found = {"target": {"encoder": {"norm": 1}}, "state": {"step": 9}}
    assert checkpoint.initial_state(found, wanted) == {"target": {"encoder": {"norm": 1}}}
    assert checkpoint.initial_state(found, wanted, is_resuming=True) == found
    with pytest.raises(UserError, match="encoder/norm"):
        checkpoint.initial_state({"target": {}}, wanted)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, checkout) -> Path:
    """The folder of `experiments/t5x/compare.py`."""
    folder = tmp_path_factory.mktemp("compared")
    script(checkout, str(checkout / "experiments" / "t5x" / "compare.py"), str(folder))
    return folder


def script(checkout: Path, *argv: str, flags: str = "") -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_ten_steps_have_equal_losses(compared):
    found = rows(compared / "losses.csv")
    assert len(found) == 10 and float(found[9]["t5x"]) < float(found[0]["t5x"]) / 2
    for row in found:
        assert float(row["t5x"]) == pytest.approx(float(row["ours"]), abs=1e-4)
    trained = [
        load_t5x_prompt(compared / "t5x" / "checkpoint_10"),
        pt.load_prompt(compared / "ours" / "prompt_best.npy"),
    ]
    np.testing.assert_allclose(trained[0], getattr(trained[1], "prompt", trained[1]), atol=1e-3)


def test_only_the_prompt_changes_and_has_a_state(compared):
    frozen = pt.load("tinyworld_tiny", "tinyworld")
    trained = compared / "t5x" / "checkpoint_10"
    _, params = load_frozen(trained, frozen.config)
    jax.tree.map(np.testing.assert_array_equal, params, frozen.params)
    assert np.any(load_t5x_prompt(trained) != load_t5x_prompt(compared / "t5x" / "checkpoint_0"))
    metadata = json.loads((trained / "state" / "_METADATA").read_text())["tree_metadata"]
    arrays = {
        "/".join(part["key"] for part in leaf["key_metadata"])
        for leaf in metadata.values()
        if leaf["value_metadata"]["value_type"] != "None"
    }
    states = {name for name in arrays if name.startswith("state/param_states/")}
    assert states == {
        f"state/param_states/{VARIABLE}/{name}" for name in ("m", "v", "v_col", "v_row")
    }


def test_each_scores_what_the_other_trained(compared):
    found = rows(compared / "scores.csv")
    assert [row["trained by"] for row in found] == ["t5x", "ours"]
    for row in found:
        assert float(row["scored by t5x"]) == pytest.approx(float(row["scored by us"]))
