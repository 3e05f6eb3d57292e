"""A T5Gemma of random weights in every command that a T5 goes through, with Gemma's kind of ids."""

import json

import jax
import numpy as np
import pytest
import sentencepiece
from safetensors.numpy import load_file

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tokenized import tokenized
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5gemma_config import Stack, T5GemmaConfig

pytestmark = pytest.mark.usefixtures("compile_once")
BOS, EOS = 2, 1
STACK = Stack(
    embed_dim=16,
    mlp_dim=32,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    query_scalar=8.0,
    windows=(4, 0),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_superglue):
    folder = tmp_path_factory.mktemp("models") / "tiny_t5gemma"
    folder.mkdir()
    config = T5GemmaConfig(
        name="tiny_t5gemma", vocab_size=384, embed_dim=16, encoder=STACK, decoder=STACK
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32),
        abstract_params(config),
    )
    save_weights(folder / "weights.safetensors", params, config)
    text = [line for file in tiny_superglue.glob("*/train.jsonl") for line in file.open()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*text, *["False True entailment not_entailment"] * 10]),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        byte_fallback=True,
        vocab_size=384,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=EOS,
        bos_id=BOS,
        unk_id=3,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    config = {"add_bos_token": True, "added_tokens_decoder": {"2": {"content": "<s>"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_inputs_begin_and_targets_end(folder, tiny_superglue, tmp_path):
    vocabulary = find_vocabulary(folder)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, EOS, 3)
    assert (vocabulary.bos_id, len(vocabulary), vocabulary.num_sentinels) == (BOS, 384, 0)
    ids = vocabulary.encode("True or é")
    assert vocabulary.decode([*ids, EOS, 5]) == "True or é"
    assert vocabulary.encode_inputs("True or é") == ([BOS, *ids], False)
    assert vocabulary.encode_inputs("True or é", 3) == ([BOS, *ids[:2]], True)
    split = tokenized(
        get_task("superglue_rte"),
        "validation",
        vocabulary=vocabulary,
        lengths={"inputs": 12, "targets": 30},
        data_dir=str(tiny_superglue),
        cache_dir=tmp_path,
    )
    for row in range(len(split)):
        inputs, targets = split.inputs[row], split.targets[row]
        assert len(inputs) == 12 and inputs[0] == BOS and EOS not in inputs
        assert targets[-1] == EOS and BOS not in targets


def test_it_is_trained_evaluated_and_asked(folder, tiny_flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = {
        "INITIAL_CHECKPOINT_PATH": folder,
        "VOCABULARY_PATH": None,
        "TASK_FEATURE_LENGTHS": {"inputs": 40, "targets": 12},
    }
    flags = [flag for flag in tiny_flags if flag.split("=")[0][6:] not in settings]
    flags += [f"--gin.{name}={value}" for name, value in settings.items()]
    files = ("tasks/superglue_rte", "prompts/class_label", "runs/train")
    assert main(["train", *(f"--gin_file={file}.gin" for file in files), *flags]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["model"], summary["steps"]) == ("tiny_t5gemma", 1)
    assert summary["trained_parameters"] == 3 * 16
    capsys.readouterr()
    for method in ("rank", "beam"):
        assert main(["evaluate", "run", f"--gin.predict.method={method}"]) == 0
        assert 0 <= json.loads(capsys.readouterr().out)["score"] <= 1
    with pytest.raises(UserError, match="family t5gemma, which T5X doesn't have; expected peft"):
        main(["export", "run", "--output", "t5x", "--format", "t5x"])
    assert main(["export", "run", "--output", "adapter", "--format", "peft"]) == 0
    config, frozen = load_frozen(folder)
    loaded = [
        load_adapter(path, config=config, model="tiny_t5gemma").prompt
        for path in ("run", "adapter")
    ]
    np.testing.assert_allclose(*loaded, rtol=1e-6)
    stored = load_file("adapter/adapter_model.safetensors")["prompt_embeddings"]
    np.testing.assert_allclose(stored, loaded[0] / 4, rtol=1e-6)  # the root of the width

    assert main(["convert", str(folder), "folder", "--format", "huggingface"]) == 0
    again = load_frozen("folder")[1]
    jax.tree.map(np.testing.assert_array_equal, again, frozen)
    assert find_vocabulary("folder").bos_id == BOS
