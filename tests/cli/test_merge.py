"""A run of LoRA on random weights, merged into a model of its own and exported."""

import json

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.cli.__main__ import main
from prompt_tuning.errors import UserError
from prompt_tuning.models.merging import merge_injection

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def run(tiny_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    files = ("tasks/superglue_rte", "runs/train", "methods/lora")
    flags = [*tiny_settings, f"--gin.MODEL_DIR={folder}", "--gin.LEARNING_RATE=1.0"]
    flags += ["--gin.TRAIN_STEPS=2", "--gin.train.eval_every=2", "--gin.lora.rank=2"]
    flags += ["--gin.linear_warmup.warmup_steps=0"]
    assert main(["train", *[f"--gin_file={file}.gin" for file in files], *flags]) == 0
    return folder


def test_a_merged_model_is_the_frozen_one_with_what_was_trained(
    run, tiny_weights_file, tmp_path, capsys
):
    output = tmp_path / "merged"
    assert main(["merge", str(run), "--output", str(output)]) == 0
    assert capsys.readouterr().out.split() == [str(output / "weights.safetensors")]
    config, merged = load_frozen(output / "weights.safetensors")
    assert config.name == "tiny_random_merged"
    _, frozen = load_frozen(tiny_weights_file)
    adapter = load_adapter(run)
    expected = jax.jit(merge_injection)(frozen, adapter.injection)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, expected)
    assert (output / "spiece.model").is_file()
    with pytest.raises(UserError, match="isn't empty, and nothing is written over"):
        main(["merge", str(run), "--output", str(output)])


def test_what_lora_trained_is_exported_for_peft_and_scored_from_there(run, tmp_path, capsys):
    output = tmp_path / "adapter"
    assert main(["export", str(run), "--format", "peft", "--output", str(output)]) == 0
    assert json.loads((output / "adapter_config.json").read_text())["peft_type"] == "LORA"
    capsys.readouterr()
    scores = []
    for flags in ([], ["--prompt", str(output)]):
        assert main(["evaluate", str(run), *flags]) == 0
        scores.append(json.loads(capsys.readouterr().out)["score"])
    assert scores[0] == scores[1]
    with pytest.raises(
        UserError, match="Only prompts can be exported as npy, but this was .* lora"
    ):
        main(["export", str(run), "--format", "npy", "--output", str(tmp_path / "other")])
