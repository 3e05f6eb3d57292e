"""PEFT's adapters of decoder-only models (CAUSAL_LM), both ways: the same logits."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.adapter_files import load_adapter
from prompt_tuning.checkpoints.adapters.prompt_export import export_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import MODELS
from prompt_tuning.models.families import model_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "eos_token_id": 7,
    "pad_token_id": 0,
}
# Gemma's window is wider than the inputs: a prefix leaves PEFT's.
KINDS = {"Llama": {}, "Gemma2": {"sliding_window": 64, "query_pre_attn_scalar": 6}}
TASK = {"task_type": "CAUSAL_LM"}
METHODS = {
    "prompt": lambda: peft.PromptTuningConfig(**TASK, num_virtual_tokens=3),
    "lora": lambda: peft.LoraConfig(
        **TASK, r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    ),
    "ia3": lambda: peft.IA3Config(
        **TASK,
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    ),
    "prefix": lambda: peft.PrefixTuningConfig(
        **TASK, num_virtual_tokens=3, num_attention_heads=2, token_dim=12, num_layers=2
    ),
}
SOURCE = np.array([[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]], np.int32)
TARGETS = np.array([[31, 32, 33], [41, 42, 43]], np.int32)


@functools.cache
def model_class(kind):
    return getattr(transformers, f"{kind}ForCausalLM")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    """A model of random weights, as `transformers` writes it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **KINDS[kind])
    model = model_class(kind)(config)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    config, params = load_frozen(folder)
    forward = jax.jit(model_of(config).apply)
    batch = {
        "encoder_input_tokens": jnp.asarray(SOURCE),
        "decoder_input_tokens": jnp.pad(jnp.asarray(TARGETS), ((0, 0), (1, 0)))[:, :-1],
    }
    return config, lambda injection: np.asarray(forward({"params": params}, batch, injection))


def of_peft(model):
    """Returns PEFT's logits of the targets."""
    tokens = torch.tensor(np.concatenate([SOURCE, TARGETS], axis=1)).long()
    with torch.no_grad():
        logits = model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    return logits[:, -len(TARGETS[0]) - 1 : -1].numpy()


@pytest.mark.parametrize("method", METHODS)
def test_the_same_logits_both_ways(kind, folder, ours, method, tmp_path):
    config, logits = ours
    base = model_class(kind).from_pretrained(folder, attn_implementation="eager")
    theirs = peft.get_peft_model(base, METHODS[method]())
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.5 * torch.randn_like(parameter)
    expected = of_peft(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    adapter = load_adapter(tmp_path / "theirs", config=config)
    np.testing.assert_allclose(logits(adapter.injection), expected, atol=1e-4)

    metadata = PromptMetadata.of_model(config, method=adapter.metadata.method)
    adapter = type(adapter)(method=adapter.method, trained=adapter.trained, metadata=metadata)
    export_adapter(tmp_path / "ours", adapter, form="peft")
    base = model_class(kind).from_pretrained(folder, attn_implementation="eager")
    read = peft.PeftModel.from_pretrained(base, tmp_path / "ours")
    np.testing.assert_allclose(of_peft(read), expected, atol=1e-4)
    with pytest.raises(UserError, match="task_type 'CAUSAL_LM'"):
        load_adapter(tmp_path / "ours", config=MODELS["t5_1_1_small"])
