"""Trials of folders: each that a command wrote is taken by every command that takes its like."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter, write_adapter
from prompt_tuning.checkpoints.adapters.prompt_export import FORMATS, export_prompt
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import flatten, save_weights
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.targets import projections, select_targets

SIZES = dict(vocab_size=384, embed_dim=16, num_heads=2, head_dim=4, mlp_dim=24)
SIZES |= dict(num_encoder_layers=2, num_decoder_layers=3, relative_attention_num_buckets=8)


def _random_model(path, **fields):
    config = T5Config(name="random", **SIZES, **fields)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32),
        abstract_params(config),
    )
    save_weights(path, params, config)
    return config, params


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"gated_mlp": False, "tie_embeddings": True},
        {"activation": "gelu_erf", "decoder_start_id": 5},
        {"gated_mlp": False, "activation": "silu"},
        {"bias_per_layer": True, "tie_embeddings": True},
    ],
    ids=["v1.1", "v1.0", "gated-erf", "silu", "umt5"],
)
def test_s2_a_model_leaves_as_a_hugging_face_folder(tmp_path, tiny_vocabulary_file, fields):
    from torch import inference_mode, tensor
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Tokenizer

    config, params = _random_model(tmp_path / "weights.safetensors", **fields)
    (tmp_path / "spiece.model").write_bytes(tiny_vocabulary_file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 4}))
    folder = tmp_path / "hub"
    # The folder that `merge` and `pretrain` write, in place of the file in it.
    assert main(["convert", str(tmp_path), str(folder), "--format", "huggingface"]) == 0

    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    rng = np.random.default_rng(1)
    inputs, targets = rng.integers(3, 380, (2, 7)), rng.integers(3, 380, (2, 4))
    targets[:, 0] = config.start_id
    batch = {"encoder_input_tokens": inputs, "decoder_input_tokens": targets}
    on_device = jax.tree.map(jax.numpy.asarray, ({"params": params}, batch))
    ours = jax.jit(T5(config).apply)(*on_device)
    with inference_mode():
        output = theirs(input_ids=tensor(inputs), decoder_input_ids=tensor(targets))
    np.testing.assert_allclose(ours, output.logits.numpy(), atol=1e-4)
    assert theirs.config.decoder_start_token_id == config.start_id

    # And comes back, with its vocabulary.
    found, again = load_frozen(folder)
    same = dataclasses.replace(found, name="random", decoder_start_id=config.decoder_start_id)
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, flatten(again), flatten(params))
    # `AutoTokenizer` reads no SentencePiece file for a UMT5.
    kind = T5Tokenizer if config.bias_per_layer else AutoTokenizer
    vocabulary, tokenizer = find_vocabulary(folder), kind.from_pretrained(folder)
    assert len(vocabulary) == len(tokenizer)
    text = "A cat sat on the mat."
    assert vocabulary.encode(text) == tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture
def lora_file(tmp_path) -> Path:
    """A random LoRA for TinyWorld Tiny."""
    config, _ = load_frozen("tinyworld_tiny")
    method = LoRA(targets=select_targets(projections(config), ("query", "value")), rank=2)
    batch = {"encoder_input_tokens": np.ones((1, 1), np.int32)}
    trained = jax.tree.map(
        lambda leaf: np.random.default_rng(0).normal(scale=0.1, size=leaf.shape).astype("float32"),
        jax.eval_shape(lambda: method.init(jax.random.key(0), batch)),
    )
    return write_adapter(tmp_path / "lora.safetensors", method, trained, PromptMetadata())


def test_s2_a_merged_model_answers_on_its_own(finished_run, lora_file, tmp_path, command):
    merged = tmp_path / "merged"
    # TinyWorld's bfloat16 would round what is merged.
    run = [finished_run, "--gin.frozen_model.param_dtype=float32"]
    merge = command("merge", *run, "--adapter", lora_file, "--output", merged)
    assert merge.status == 0
    answered = {}
    for name, flags in {
        "beside": ["--prompt", lora_file],
        "merged": ["--no_prompt", f"--gin.INITIAL_CHECKPOINT_PATH={merged}"],
        "frozen": ["--no_prompt"],
    }.items():
        file = tmp_path / f"{name}.jsonl"
        result = command("evaluate", *run, *flags, "--predictions", file)
        assert result.status == 0, result.err
        answered[name] = [json.loads(line)["prediction"] for line in file.open()]
        given = json.loads(result.out)["prompt"]
        assert given == (str(lora_file) if name == "beside" else None)
    assert answered["merged"] == answered["beside"] != answered["frozen"]


def test_s2_either_a_prompt_or_none(finished_run, lora_file, command):
    result = command("evaluate", finished_run, "--prompt", lora_file, "--no_prompt")
    assert (result.status, "either --prompt or --no_prompt" in result.message) == (2, True)


@pytest.mark.parametrize("form", FORMATS)
def test_s2_every_exported_folder_is_taken_as_a_prompt(tmp_path, form):
    prompt = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    metadata = PromptMetadata(model="t5-small", task="rte", metric="accuracy", score=0.75, step=7)
    export_prompt(tmp_path / form, prompt, metadata, form=form)
    np.testing.assert_array_equal(load_adapter(tmp_path / form).prompt, prompt)


def test_s2_a_peft_folder_says_what_it_is(tmp_path):
    metadata = PromptMetadata(model="t5-small", task="rte", metric="accuracy", score=0.75, step=7)
    prompt = np.zeros((3, 8), np.float32)
    export_prompt(tmp_path / "rte", prompt, metadata, form="peft", base_model="google/t5-small")
    card = (tmp_path / "rte" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: peft\nbase_model: google/t5-small\n---\n")
    for fact in ("Task: rte", "score: 0.7500 (accuracy)", "Method: soft prompt", "steps: 7"):
        assert fact in card
    assert "from_pretrained('google/t5-small')" in card


def test_s2_what_was_given_is_named(tmp_path, command):
    output = tmp_path / "new"
    result = command("export", "runs/rte/nope", "--format", "npy", "--output", output)
    assert result.status == 2
    assert result.message.endswith("There is no prompt file or run folder runs/rte/nope.")


def test_s2_methods_knows_every_model(tiny_weights_file, command):
    from prompt_tuning.cli.methods import config_of

    assert config_of("tinyworld_small").embed_dim == 96
    assert config_of("t5_1_1_xl").embed_dim == 2048
    assert config_of(str(tiny_weights_file)).name == "tiny_random"
    result = command("methods", "--model", "tinyworld_smal")
    assert result.status == 2
    assert "t5_1_1_small, " in result.message and "'tinyworld_small'" in result.message
