"""Trials of folders: each that a command wrote is taken by every command that takes its like."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.frozen import load_frozen
from prompt_tuning.checkpoints.weights import flatten, save_weights
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.vocabularies import find_vocabulary
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import T5, abstract_params

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
    ],
    ids=["v1.1", "v1.0", "gated-erf", "silu"],
)
def test_s2_a_model_leaves_as_a_hugging_face_folder(tmp_path, tiny_vocabulary_file, fields):
    from torch import inference_mode, tensor
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

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
    vocabulary, tokenizer = find_vocabulary(folder), AutoTokenizer.from_pretrained(folder)
    assert len(vocabulary) == len(tokenizer)
    text = "A cat sat on the mat."
    assert vocabulary.encode(text) == tokenizer.encode(text, add_special_tokens=False)
