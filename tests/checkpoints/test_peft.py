"""Adapters to and from the installed PEFT: the same logits and the same greedy answers."""

import copy
import importlib.util
import json
import os
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.adapters.prompt_export import export_prompt
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import MODELS
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

torch.set_num_threads(1)  # more of them only wait for each other on matrices this small
EXAMPLES, SOURCE, TARGET, PROMPT, EMBED = 32, 14, 7, 5, 32
METADATA = PromptMetadata(model="tiny", task="rte", step=40, vocabulary_hash="ab" * 32)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    """A T5 1.1 of random weights, saved by `transformers`."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=120,
        d_model=EMBED,
        d_kv=6,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    model = transformers.T5ForConditionalGeneration(config)
    # transformers 5 ties them whatever the config says
    model.lm_head.weight = torch.nn.Parameter(torch.randn(120, EMBED))
    model.config.tie_word_embeddings = False
    folder = tmp_path_factory.mktemp("base") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(base_folder):
    return transformers.T5ForConditionalGeneration.from_pretrained(base_folder).eval()


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, SOURCE + 1, EXAMPLES)
    tokens = rng.integers(2, 120, (EXAMPLES, SOURCE))
    targets = rng.integers(2, 120, (EXAMPLES, TARGET))
    targets[:, 0] = 0
    return {
        "encoder_input_tokens": np.where(np.arange(SOURCE) < lengths[:, None], tokens, 0),
        "decoder_input_tokens": targets,
    }


@pytest.fixture(scope="module")
def ours(base_folder, batch):
    """Computes our logits and our greedy answers, given a prompt."""
    config, frozen = load_frozen(base_folder)
    model = T5(config)
    forward = jax.jit(model.apply)

    def compute(prompt):
        injection = Injection(encoder_prompt=jnp.asarray(prompt)[None])
        options = DecodingOptions(max_length=10)
        tokens = generate(model, frozen, batch["encoder_input_tokens"], injection, options)
        return np.asarray(forward({"params": frozen}, batch, injection)), np.asarray(tokens)

    return compute


def run_peft(model, batch):
    """Returns PEFT's logits and greedy answers, [example, 10], in our layout."""
    tokens = torch.from_numpy(batch["encoder_input_tokens"])
    inputs = {"input_ids": tokens, "attention_mask": (tokens != 0).long()}
    targets = torch.from_numpy(batch["decoder_input_tokens"])
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=targets).logits.numpy()
    answers = model.generate(**inputs, max_new_tokens=10, do_sample=False, num_beams=1).numpy()
    padded = np.zeros((EXAMPLES, 10), np.int64)
    padded[:, : answers.shape[1] - 1] = answers[:, 1:]  # theirs begin with the start token
    return logits, padded


def assert_agree(found, expected, record_property):
    difference = float(np.abs(found[0] - expected[0]).max())
    record_property("max_logit_difference", difference)
    print(f"max logit difference {difference:.1e}")
    assert expected[0].std() > 0.5
    assert difference < 1e-4
    assert len(np.unique(expected[1], axis=0)) > 10
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.fixture(scope="module")
def prompt():
    return np.random.default_rng(1).normal(size=(PROMPT, EMBED)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, prompt, base_folder):
    folder = tmp_path_factory.mktemp("exported") / "adapter"
    export_prompt(folder, prompt, METADATA, form="peft", base_model=str(base_folder))
    return folder


def adapter_of_peft(theirs, folder, **options):
    """Saves an adapter as PEFT makes it, and returns PEFT's model."""
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=PROMPT, **options)
    torch.manual_seed(2)
    model = peft.get_peft_model(copy.deepcopy(theirs), config).eval()
    model.save_pretrained(folder)
    return model


def test_peft_computes_the_same_with_our_export(
    exported, theirs, ours, prompt, batch, record_property
):
    model = peft.PeftModel.from_pretrained(copy.deepcopy(theirs), exported).eval()
    assert_agree(run_peft(model, batch), ours(prompt), record_property)


def test_peft_finds_the_base_model_of_our_export(exported, theirs, batch):
    found = peft.AutoPeftModelForSeq2SeqLM.from_pretrained(exported).eval()
    given = peft.PeftModel.from_pretrained(copy.deepcopy(theirs), exported).eval()
    np.testing.assert_array_equal(run_peft(found, batch)[0], run_peft(given, batch)[0])


def test_peft_saves_our_export_again_as_it_was(exported, theirs, prompt, tmp_path):
    model = peft.PeftModel.from_pretrained(copy.deepcopy(theirs), exported)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(load_prompt(tmp_path)[0], prompt)


@pytest.mark.parametrize("rows", [PROMPT, 2 * PROMPT])
def test_we_compute_the_same_with_an_adapter_of_peft(
    theirs, ours, batch, rows, tmp_path, caplog, record_property
):
    # PEFT's own default is two submodules.
    options = {"num_transformer_submodules": 1} if rows == PROMPT else {}
    model = adapter_of_peft(theirs, tmp_path, **options)
    assert model.prompt_encoder["default"].embedding.weight.shape == (rows, EMBED)
    prompt, _ = load_prompt(tmp_path, (PROMPT, EMBED))
    assert_agree(ours(prompt), run_peft(model, batch), record_property)
    told = "10 rows, but PEFT uses only rows 0 to 4: these are loaded, and the unused rows 5 to 9"
    assert (told in caplog.text) == (rows == 2 * PROMPT)


def test_peft_trains_none_of_the_rows_that_we_leave_out(theirs, batch, tmp_path):
    model = adapter_of_peft(theirs, tmp_path)
    tokens = torch.from_numpy(batch["encoder_input_tokens"])
    targets = torch.from_numpy(batch["decoder_input_tokens"])
    model(input_ids=tokens, attention_mask=(tokens != 0).long(), labels=targets).loss.backward()
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    assert gradient[:PROMPT].abs().sum(dim=1).min() > 0
    assert not gradient[PROMPT:].any()


def test_our_metadata_comes_back_from_an_adapter(exported, prompt):
    array, metadata = load_prompt(exported, model="tiny", vocabulary_hash="ab" * 32)
    np.testing.assert_array_equal(array, prompt)
    assert metadata == METADATA
    assert load_prompt(exported / "adapter_model.safetensors")[1] == METADATA


def test_an_adapter_of_half_precision_is_read(theirs, tmp_path):
    model = adapter_of_peft(theirs, tmp_path, num_transformer_submodules=1)
    expected = model.prompt_encoder["default"].embedding.weight.detach().to(torch.bfloat16)
    model.prompt_encoder["default"].to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    with safetensors.safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        assert file.get_tensor("prompt_embeddings").dtype == torch.bfloat16
    np.testing.assert_array_equal(load_prompt(tmp_path)[0], expected.float().numpy())


# What a user can get wrong.


@pytest.fixture
def adapter(tmp_path, prompt):
    """A fresh adapter to break."""
    export_prompt(tmp_path / "adapter", prompt, METADATA, form="peft")
    return tmp_path / "adapter"


def change(adapter, **fields):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def store(adapter, **arrays):
    safetensors.numpy.save_file(arrays, adapter / "adapter_model.safetensors", {"format": "pt"})


def refused(message, *args, **kwargs):
    with pytest.raises(UserError, match=message) as caught:
        load_prompt(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_an_adapter_without_its_configuration_is_refused(adapter):
    (adapter / "adapter_config.json").unlink()
    refused("weights but no adapter_config.json", adapter)
    refused("weights but no adapter_config.json", adapter / "adapter_model.safetensors")


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_broken_configuration_is_refused(adapter, text):
    (adapter / "adapter_config.json").write_text(text, errors="surrogateescape")
    refused("adapter_config.json", adapter)


def test_an_adapter_of_another_method_is_refused(adapter):
    change(adapter, peft_type="LORA")
    refused("peft_type 'LORA'.*only 'PROMPT_TUNING' or 'P_TUNING' is supported", adapter)


def test_an_adapter_of_another_kind_of_model_is_refused(adapter):
    change(adapter, task_type="SEQ_CLS")
    refused("task_type 'SEQ_CLS'.*only 'SEQ_2_SEQ_LM' or 'CAUSAL_LM' is supported", adapter)
    change(adapter, task_type="CAUSAL_LM")
    with pytest.raises(UserError, match="task_type 'CAUSAL_LM'.*expected 'SEQ_2_SEQ_LM' for"):
        load_adapter(adapter, config=MODELS["t5_1_1_small"])


def test_an_adapter_of_another_width_or_model_is_refused(adapter):
    refused("32 wide, but the model's embeddings are 512 wide", adapter, (None, 512))
    refused("trained for the model 'tiny'", adapter, model="t5_1_1_small")
    refused("another vocabulary", adapter, vocabulary_hash="cd" * 32)


def test_values_that_are_not_finite_are_refused(adapter, prompt):
    broken = prompt.copy()
    broken[3, 2] = np.nan
    store(adapter, prompt_embeddings=broken)
    refused("NaN or infinite, the first at position 3, column 2", adapter)


@pytest.mark.parametrize("number", [3, "5", None])
def test_rows_that_do_not_match_the_configuration_are_refused(adapter, number):
    change(adapter, num_virtual_tokens=number)
    refused(r"shape \[5, 32\], but num_virtual_tokens .* is", adapter)


def test_what_else_was_trained_is_not_dropped_silently(adapter, prompt):
    store(adapter, **{"prompt_embeddings": prompt, "shared.weight": prompt})
    refused("contains prompt_embeddings, shared.weight; expected only prompt_embeddings", adapter)


def test_half_an_adapter_is_refused(adapter):
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    for size in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused("adapter_model.safetensors': it isn't a complete safetensors file", adapter)
    path.unlink()
    refused("adapter_config.json but no adapter_model.safetensors", adapter)


class Trap:
    """An object whose unpickling would create a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_a_pickle_of_more_than_tensors_is_refused_and_nothing_in_it_runs(adapter, tmp_path, save):
    (adapter / "adapter_model.safetensors").unlink()
    for name in ("adapter_model.bin", "prompt.npy", "adapter_model.safetensors"):
        save({"prompt_embeddings": Trap(str(tmp_path / "sprung"))}, adapter / name)
        # PyTorch takes a file called .safetensors for one, whatever is in it.
        message = "Can't read weights" if "safe" in name else "contains more than tensors, which is"
        refused(message, adapter / name)
        refused(message, adapter)
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_needs_pytorch(adapter, prompt, monkeypatch):
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"prompt_embeddings": torch.from_numpy(prompt)}, adapter / "adapter_model.bin")
    np.testing.assert_array_equal(load_prompt(adapter)[0], prompt)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused("needs PyTorch, which isn't installed", adapter)
