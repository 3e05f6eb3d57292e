"""Trials of frozen models: odd configs and files, and what `transformers` computes of them."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import prompt_tuning
from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.arrays.safetensors_files import write_arrays
from prompt_tuning.checkpoints.frozen.huggingface_config import USED_FIELDS, config_from_huggingface
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.t5 import T5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

VOCABULARY = 60
SIZE = {"vocab_size": VOCABULARY, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_heads": 3}
SIZE |= {"num_layers": 1, "dropout_rate": 0.0, "decoder_start_token_id": 0}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SOURCES = np.random.default_rng(0).integers(2, VOCABULARY, (8, 12)).astype(np.int32)
TARGETS = np.random.default_rng(1).integers(2, VOCABULARY, (8, 7)).astype(np.int32)
TARGETS[:, 0] = 0


@functools.cache
def reference(kind: str = "T5", *, ties: bool = True, **fields):
    """A tiny random model of `transformers`, whose config has these fields too."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZE | fields)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    if not ties:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, SIZE["d_model"]))
        model.config.tie_word_embeddings = False
    return model


def saved(folder, model):
    """The folder that `transformers` saves a model into."""
    model.save_pretrained(folder)
    return folder


def changed(folder, **fields):
    """The folder with other fields in its config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def computed(folder, targets=TARGETS) -> np.ndarray:
    """Our logits of the model in a folder."""
    config, frozen = load_frozen(folder)
    batch = {"encoder_input_tokens": SOURCES, "decoder_input_tokens": targets}
    return np.asarray(_apply(T5(config, Compute(unroll=0)), frozen, batch))


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, frozen, batch):
    return model.apply({"params": frozen}, batch)


def expected(model, targets=TARGETS) -> np.ndarray:
    """The logits of `transformers`."""
    ids, targets = (torch.from_numpy(tokens).long() for tokens in (SOURCES, targets))
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=targets).logits.numpy()
    assert logits.std() > 0.5
    return logits


def test_trial_04_decoder_start_token_id_is_used(tmp_path):
    """In teacher forcing, where a pipeline puts padding first, and in decoding."""
    model = reference(**V1_1 | {"decoder_start_token_id": 5}, ties=False)
    folder = saved(tmp_path / "model", model)
    config, frozen = load_frozen(folder)
    assert config.start_id == 5
    theirs = TARGETS.copy()
    theirs[:, 0] = 5
    np.testing.assert_allclose(computed(folder), expected(model, theirs), atol=1e-4)
    ids = torch.from_numpy(SOURCES).long()
    answers = model.generate(ids, max_new_tokens=5, do_sample=False, num_beams=1).numpy()
    ours = generate(T5(config), frozen, SOURCES, options=DecodingOptions(max_length=5))
    np.testing.assert_array_equal(ours[:, : answers.shape[1] - 1], answers[:, 1:])


def test_trial_05_a_single_file_comes_before_shards(tmp_path):
    """As in `transformers`; of safetensors and of PyTorch's files."""
    old, new = reference(**V1_1, ties=False), reference(**V1_1)
    folder = tmp_path / "model"
    old.save_pretrained(folder, max_shard_size="8KB")
    assert (folder / "model.safetensors.index.json").exists()
    new.save_pretrained(tmp_path / "single")
    shutil.copy(tmp_path / "single" / "model.safetensors", folder)
    _, frozen = load_frozen(folder)
    table = new.shared.weight.detach().numpy()
    np.testing.assert_array_equal(frozen["decoder"]["logits_dense"]["kernel"], table.T)

    folder = tmp_path / "torch"
    folder.mkdir()
    shutil.copy(tmp_path / "single" / "config.json", folder)
    index = {"weight_map": {"shared.weight": "gone.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    torch.save(new.state_dict(), folder / "pytorch_model.bin")
    _, frozen = load_frozen(folder)
    np.testing.assert_array_equal(frozen["token_embedder"]["embedding"], table)


@pytest.mark.parametrize("kept", ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight"])
def test_trial_16_a_table_that_is_called_otherwise(tmp_path, kept):
    from safetensors.torch import save_file, save_model

    model = reference()
    folder = saved(tmp_path / "model", model)
    save_model(model, folder / "model.safetensors")
    if kept.startswith("encoder"):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        for name in ("shared.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
            del state[name]
        save_file(state, folder / "model.safetensors")
    _, frozen = load_frozen(folder)
    table = model.shared.weight.detach().numpy()
    np.testing.assert_array_equal(frozen["token_embedder"]["embedding"], table)


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "module._orig_mod."])
def test_trial_18_a_prefix_that_all_names_share(tmp_path, prefix):
    model = reference()
    folder = saved(tmp_path / "model", model)
    (folder / "model.safetensors").unlink()
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")
    _, frozen = load_frozen(folder)
    table = model.shared.weight.detach().numpy()
    np.testing.assert_array_equal(frozen["token_embedder"]["embedding"], table)


def test_trial_18_many_names_are_cut_at_ten(tmp_path):
    model = reference()
    folder = saved(tmp_path / "model", model)
    (folder / "model.safetensors").unlink()
    state = {f"{name}.{i}": value for i, (name, value) in enumerate(model.state_dict().items())}
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"don't match the model: decoder.*; and \d+ more\.$"
    ) as error:
        load_frozen(folder)
    assert str(error.value).count(";") == 10


def test_trial_19_gated_silu(tmp_path):
    fields = {"feed_forward_proj": "gated-silu", "layer_norm_epsilon": 0.01}
    fields |= {"num_decoder_layers": 2, "relative_attention_num_buckets": 6}
    model = reference(**V1_1 | fields | {"relative_attention_max_distance": 9}, ties=False)
    folder = saved(tmp_path / "model", model)
    np.testing.assert_allclose(computed(folder), expected(model), atol=1e-4)


def test_trial_19_a_umt5_that_transformers_ties(tmp_path):
    model = reference("UMT5", num_decoder_layers=2)
    folder = saved(tmp_path / "model", model)
    np.testing.assert_allclose(computed(folder), expected(model), atol=1e-4)


@pytest.mark.parametrize(
    ("block", "activation"),
    [("gated-gelu", "relu"), ("gated-gelu", "gelu"), ("relu", "silu")],
)
def test_trial_33_dense_act_fn_decides(tmp_path, block, activation):
    fields = {"feed_forward_proj": block}
    model = reference(**fields, dense_act_fn=activation)
    folder = saved(tmp_path / "model", model)
    assert json.loads((folder / "config.json").read_text())["feed_forward_proj"] == block
    np.testing.assert_allclose(computed(folder), expected(model), atol=1e-4)


@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_trial_35_an_output_layer_that_is_the_table(tmp_path, kind):
    """A fresh v1.1 or mT5 of transformers 5: tied, unscaled, and without lm_head.weight."""
    model = reference(kind, **V1_1)
    folder = saved(tmp_path / "model", model)
    again = getattr(transformers, f"{kind}ForConditionalGeneration").from_pretrained(folder).eval()
    np.testing.assert_allclose(computed(folder), expected(again), atol=1e-4)


@pytest.mark.parametrize(
    ("base", "warned"),
    [
        ("google/flan-t5-small", True),
        ("/models/other/checkpoint-500/", True),
        ("google/t5-small-lm-adapt", False),
        ("models/T5_1_1_lm100k_small", False),
        (None, False),
    ],
)
def test_trial_09_an_adapter_of_another_model(tmp_path, caplog, base, warned):
    config = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 1}
    text = json.dumps(config | {"base_model_name_or_path": base})
    (tmp_path / "adapter_config.json").write_text(text)
    prompt = {"prompt_embeddings": np.ones((1, 4), np.float32)}
    write_arrays(tmp_path / "adapter_model.safetensors", prompt, {}, fix="")
    adapter = load_adapter(tmp_path, model="t5_1_1_lm100k_small", embed_dim=4)
    assert adapter.metadata.base_model == base
    assert len(caplog.messages) == warned
    assert not warned or f"was trained on '{base}'" in caplog.text
    with pytest.raises(UserError, match="4 wide, but the model's embeddings are 8 wide"):
        load_adapter(tmp_path, model="t5_1_1_lm100k_small", embed_dim=8)


@pytest.mark.parametrize(
    ("block", "gated", "activation"),
    [
        ("gelu", False, "gelu_erf"),
        ("gated-gelu", True, "gelu_tanh"),
        ("gated-gelu_new", True, "gelu_tanh"),
        ("silu", False, "silu"),
    ],
)
def test_trial_33_the_names_of_activations(block, gated, activation):
    fields = transformers.T5Config(**SIZE, feed_forward_proj=block).to_dict()
    config = config_from_huggingface(fields, name="x")
    assert (config.gated_mlp, config.activation_name) == (gated, activation)


# What a config.json says of training, of `generate`, of other heads and of how it was written.
IRRELEVANT = {
    "dropout_rate",  # a frozen model runs without
    "initializer_factor",
    "classifier_dropout",
    "is_decoder",
    "use_cache",
    "architectures",
    "transformers_version",
    "dtype",
    "chunk_size_feed_forward",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "id2label",
    "label2id",
    "problem_type",
    "_name_or_path",
    "bos_token_id",
}


@pytest.mark.parametrize("kind", ["T5", "MT5"])
def test_every_field_that_transformers_writes_is_known(kind):
    fields = getattr(transformers, f"{kind}Config")().to_dict()
    assert not fields.keys() - USED_FIELDS - IRRELEVANT


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dense_act_fn": "tanh"}, "dense_act_fn='tanh'; expected one of 'relu', 'gelu'"),
        ({"feed_forward_proj": "gated-mish"}, "feed_forward_proj='gated-mish'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder=False.*expected True"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder=True.*expected False"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config="),
        ({"decoder_start_token_id": 60}, "decoder_start_id.*is 60; expected an id below vocab"),
        ({"decoder_start_token_id": "0"}, "decoder_start_token_id='0'"),
    ],
)
def test_a_field_that_cannot_be_used_is_refused_by_name(fields, message):
    config = transformers.T5Config(**SIZE).to_dict() | fields
    with pytest.raises(UserError, match=message):
        config_from_huggingface(config, name="x")


def test_trial_31_the_same_content_is_the_same_bytes(tmp_path):
    """Whatever the order in which arrays and metadata are given; the package's own is random."""
    arrays = {name: np.full(3, i, np.float32) for i, name in enumerate("cab")}
    metadata = {f"key {i}": str(i) for i in range(20)}
    paths = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    write_arrays(paths[0], arrays, metadata, fix="")
    turned = dict(reversed(metadata.items()))
    write_arrays(paths[1], dict(reversed(arrays.items())), turned, fix="")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    found = load_file(paths[0])
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["b"], arrays["b"])


def test_trial_31_every_writer_of_safetensors_is_ours():
    package = Path(prompt_tuning.__file__).parent
    sources = {path: path.read_text() for path in package.rglob("*.py")}
    assert [path.name for path, text in sources.items() if "safetensors.numpy" in text] == []
