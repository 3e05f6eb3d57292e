"""LoRA, IA3 and prefix adapters to and from the installed PEFT: the same logits, both ways."""

import copy
import functools
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter, load_adapter
from prompt_tuning.checkpoints.adapters.peft_methods import save_peft_method
from prompt_tuning.checkpoints.adapters.prompt_export import export_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.errors import UserError
from prompt_tuning.methods.deep_prompt import DeepPrompt
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import LoRA
from prompt_tuning.methods.prefix import PrefixTuning
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.methods.vera import VeRA
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.families import model_of
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.targets import attention_blocks, projections, scalable, select_targets

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft")

torch.set_num_threads(1)
EXAMPLES, SOURCE, TARGET, PREFIX = 8, 9, 5, 3
TOKENS = 4  # decoded


def t5_of_transformers(*, gated, layers):
    config = transformers.T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=6,  # times 4 heads isn't 32
        d_ff=48,
        num_layers=layers,
        num_heads=4,
        relative_attention_num_buckets=8,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=not gated,
    )
    model = transformers.T5ForConditionalGeneration(config)
    if gated:  # transformers 5 ties them whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.randn(60, 32))
        model.config.tie_word_embeddings = False
    return model


STACK = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "query_pre_attn_scalar": 6,
    "bos_token_id": 0,  # as the batch has it
}


def t5gemma_of_transformers():
    config = transformers.T5GemmaConfig(encoder=STACK, decoder=STACK, vocab_size=60)
    model = transformers.T5GemmaForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return model


def t5gemma2_of_transformers():
    images = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    images |= {"num_attention_heads": 1, "image_size": 4, "patch_size": 2}
    encoder = {"text_config": STACK, "vision_config": images, "mm_tokens_per_image": 4}
    config = transformers.T5Gemma2Config(encoder=encoder, decoder=STACK)
    model = transformers.T5Gemma2ForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    model.tie_weights()
    return model


MODELS = {
    "v1.1": functools.partial(t5_of_transformers, gated=True, layers=2),
    "v1.0": functools.partial(t5_of_transformers, gated=False, layers=3),
    "T5Gemma": t5gemma_of_transformers,
    "T5Gemma 2": t5gemma2_of_transformers,
}


class Model:
    """A model of random weights, as `transformers` and as we have it."""

    def __init__(self, folder, make):
        torch.manual_seed(0)
        theirs = make()
        theirs.save_pretrained(folder)
        options = {"attn_implementation": "eager"}  # the others have no soft cap
        self._theirs = type(theirs).from_pretrained(folder, **options).eval()
        self.config, self.frozen = load_frozen(folder)
        self.metadata = PromptMetadata.of_model(self.config).to_strings()
        self._model = model_of(self.config)
        self._forward = jax.jit(self._model.apply)

    @property
    def theirs(self):
        return copy.deepcopy(self._theirs)

    def ours(self, batch, injection, decode=False):
        if not decode:
            return np.asarray(self._forward({"params": self.frozen}, batch, injection))
        options = DecodingOptions(max_length=TOKENS)
        tokens = batch["encoder_input_tokens"]
        return np.asarray(generate(self._model, self.frozen, tokens, injection, options))


@pytest.fixture(
    scope="module",
    params=[
        "v1.1",
        pytest.param("v1.0", marks=pytest.mark.slow),
        "T5Gemma",
        pytest.param("T5Gemma 2", marks=pytest.mark.slow),
    ],
)
def model(request, tmp_path_factory):
    """A T5 gated with an even number of layers, and not with an odd one; and a T5Gemma."""
    return Model(tmp_path_factory.mktemp("base") / "tiny", MODELS[request.param])


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, SOURCE + 1, EXAMPLES)
    tokens = rng.integers(2, 60, (EXAMPLES, SOURCE))
    targets = rng.integers(2, 60, (EXAMPLES, TARGET))
    targets[:, 0] = 0
    return {
        "encoder_input_tokens": np.where(np.arange(SOURCE) < lengths[:, None], tokens, 0),
        "decoder_input_tokens": targets,
    }


def logits_of(model, batch):
    tokens = torch.from_numpy(batch["encoder_input_tokens"])
    targets = torch.from_numpy(batch["decoder_input_tokens"])
    with torch.no_grad():
        return model(
            input_ids=tokens, attention_mask=(tokens != 0).long(), decoder_input_ids=targets
        ).logits.numpy()


def answers_of(model, batch):
    tokens = torch.from_numpy(batch["encoder_input_tokens"])
    answers = model.generate(
        input_ids=tokens,
        attention_mask=(tokens != 0).long(),
        max_new_tokens=TOKENS,
        do_sample=False,
        num_beams=1,
    ).numpy()
    padded = np.zeros((EXAMPLES, TOKENS), np.int64)
    padded[:, : answers.shape[1] - 1] = answers[:, 1:]
    return padded


def assert_agree(found, expected, bare):
    print(f"max logit difference {np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected - bare).max() > 0.1, "the adapter does something"


def random_variables(method):
    # What is multiplied is drawn small: saturated attention would magnify rounding.
    scale = 0.1 if isinstance(method, LoRA) else 0.5
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(method.init, jax.random.key(0), {})
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=scale, size=leaf.shape), jnp.float32),
        shapes,
    )


def methods_of(config):
    every = projections(config)
    self_attention = select_targets(attention_blocks(config), ["self_attention"])
    return {
        "lora": LoRA(targets=select_targets(every, ["query", "value"]), rank=2, alpha=3.0),
        "lora of all": LoRA(targets=every, rank=3, alpha=4.5, rank_stabilized=True),
        "dora": DoRA(targets=every, rank=3, alpha=4.5),
        "vera": VeRA(targets=every, rank=5),
        "ia3": IA3(targets=scalable(config)),
        "deep prompt": DeepPrompt(length=PREFIX, targets=self_attention),
        "prompt": SoftPrompt(length=PREFIX, embed_dim=config.embed_dim),
        "prefix": PrefixTuning(length=PREFIX, targets=self_attention, hidden_dim=7),
    }


METHODS = (
    pytest.param("lora", marks=pytest.mark.slow),
    "lora of all",
    "dora",
    "vera",
    "ia3",
    "deep prompt",
    "prompt",
    pytest.param("prefix", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("name", METHODS)
def test_peft_computes_the_same_with_ours(model, batch, name, tmp_path):
    method = methods_of(model.config)[name]
    trained = random_variables(method)
    metadata = PromptMetadata.of_model(model.config)
    adapter = Adapter(method=method, trained=trained, metadata=metadata)
    if model.config.family == "t5gemma2" and name in ("deep prompt", "prefix"):
        with pytest.raises(UserError, match="PEFT itself can't run prefix tuning of T5Gemma 2"):
            export_adapter(tmp_path, adapter, form="peft")
        return
    export_adapter(tmp_path, adapter, form="peft")
    theirs = peft.PeftModel.from_pretrained(model.theirs, tmp_path).eval()
    bare = model.ours(batch, Injection())
    injection = method.apply(trained, batch)
    assert_agree(logits_of(theirs, batch), model.ours(batch, injection), bare)
    if name in ("prompt", "deep prompt"):
        answers = model.ours(batch, injection, decode=True)
        np.testing.assert_array_equal(answers_of(theirs, batch), answers)
    # And back again.
    adapter = load_adapter(tmp_path, config=model.config)
    folded, numbers = method.fold(trained)
    assert adapter.method == folded
    close = functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-6)  # after rotation
    jax.tree.map(close, adapter.trained, numbers)


def configs_of_peft(config) -> dict:
    """PEFT's configurations; what PEFT knows of T5 and has to be told of T5Gemma is left out."""
    q, k, v, up, down = "q", "k", "v", "wi_1", "wo"
    ia3, sizes = {}, {}
    if config.family != "t5":
        q, k, v, up, down = "q_proj", "k_proj", "v_proj", "up_proj", "down_proj"
        ia3 = {"target_modules": [k, v, down], "feedforward_modules": [down]}
        sizes = {"num_layers": 2, "num_attention_heads": 4}
    if config.family == "t5gemma2":  # names alone are those of its image encoder too
        text = r".*\.(text_model|decoder)\.layers\..*\.({})"
        return {
            "lora": peft.LoraConfig(r=2, target_modules=text.format("q_proj|v_proj")),
            "ia3": peft.IA3Config(
                target_modules=text.format("k_proj|v_proj|down_proj"),
                feedforward_modules=text.format("down_proj"),
            ),
            "p-tuning": peft.PromptEncoderConfig(
                token_dim=32, encoder_hidden_size=5, num_virtual_tokens=PREFIX, **sizes
            ),
        }
    sizes["num_virtual_tokens"] = PREFIX
    prefix = functools.partial(peft.PrefixTuningConfig, token_dim=24, **sizes)
    return {
        "lora": peft.LoraConfig(r=2, lora_alpha=5, target_modules=[q, v]),
        "lora of all": peft.LoraConfig(r=3, use_rslora=True, target_modules="all-linear"),
        "dora": peft.LoraConfig(r=3, use_dora=True, target_modules="all-linear"),
        "vera": peft.VeraConfig(r=5, target_modules=[q, v, down]),
        "ia3": peft.IA3Config(**ia3),
        "ia3 of mT5": peft.IA3Config(target_modules=[k, v, up], feedforward_modules=[]),
        "p-tuning": peft.PromptEncoderConfig(token_dim=32, encoder_hidden_size=5, **sizes),
        "prefix": prefix(),
        "prefix with a network": prefix(prefix_projection=True, encoder_hidden_size=5),
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lora", marks=pytest.mark.slow),
        "lora of all",
        "dora",
        "vera",
        "ia3",
        "ia3 of mT5",
        "p-tuning",
        "prefix",
        "prefix with a network",
    ],
)
def test_we_compute_the_same_with_peft_s(model, batch, name, tmp_path):
    if name == "ia3 of mT5" and model.config.family == "t5" and not model.config.gated_mlp:
        pytest.skip("there is no wi_1")
    if name not in (configs := configs_of_peft(model.config)):
        pytest.skip("PEFT can't, or another of its configurations says the same")
    config = configs[name]
    config.task_type = "SEQ_2_SEQ_LM"
    theirs = peft.get_peft_model(model.theirs, config).eval()
    torch.manual_seed(3)
    for parameter_name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            start = 1.0 if "ia3" in parameter_name else 0.0
            scale = 0.1 if "lora" in parameter_name else 0.5
            parameter.data = start + scale * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path, config=model.config)
    bare = model.ours(batch, Injection())
    assert_agree(model.ours(batch, adapter.injection), logits_of(theirs, batch), bare)


@pytest.mark.parametrize("model", ["v1.1", "T5Gemma"], indirect=True)
def test_half_of_an_even_number_of_peft_s_prefixes_is_never_read(model, batch):
    """What peft_methods.py says of PEFT, seen in PEFT's own gradient."""
    config = configs_of_peft(model.config)["prefix"]
    config.task_type = "SEQ_2_SEQ_LM"
    theirs = peft.get_peft_model(model.theirs, config)
    targets = torch.from_numpy(batch["decoder_input_tokens"])
    theirs(
        input_ids=torch.from_numpy(batch["encoder_input_tokens"]), labels=targets
    ).loss.backward()
    gradient = theirs.prompt_encoder["default"].embedding.weight.grad
    layers = model.config.num_decoder_layers
    read = gradient.reshape(PREFIX, layers, -1).abs().sum(dim=(0, 2)) > 0
    assert read.tolist() == ([True, False] if layers == 2 else [True] * 3)


of_t5 = pytest.mark.parametrize("model", ["v1.1"], indirect=True)


@pytest.mark.parametrize("kind", [peft.PromptTuningConfig, peft.PrefixTuningConfig])
@pytest.mark.parametrize("model", ["T5Gemma"], indirect=True)
def test_peft_can_t_find_the_sizes_of_a_t5gemma(model, kind):
    config = kind(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=PREFIX)
    with pytest.raises(ValueError, match="Please specify `num_layers`"):
        peft.get_peft_model(model.theirs, config)


@of_t5
def test_peft_s_own_default_fails_where_heads_don_t_make_up_the_width(model, batch):
    config = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=PREFIX)
    theirs = peft.get_peft_model(model.theirs, config)
    assert config.token_dim == 32 != model.config.num_heads * model.config.head_dim
    with pytest.raises(RuntimeError):
        logits_of(theirs, batch)


# What a user can get wrong.


@pytest.fixture
def saved(model, tmp_path):
    def save(name):
        method = methods_of(model.config)[name]
        save_peft_method(tmp_path, method, random_variables(method), model.metadata)
        return tmp_path

    return save


def change(adapter, **fields):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_arrays(adapter, change_them):
    path = adapter / "adapter_model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change_them(arrays)
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})


def refused(message, path, config):
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(path, config=config)
    assert "\n" not in str(caught.value)


Q0 = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"


@of_t5
def test_what_is_no_plain_lora_is_refused(model, saved):
    folder = saved("lora")
    config = model.config
    whole = json.loads((folder / "adapter_config.json").read_text())
    for field, value in {
        "bias": "lora_only",
        "modules_to_save": ["lm_head"],
        "rank_pattern": {"q": 4},
        "alpha_pattern": {"q": 4},
    }.items():
        change(folder, **{field: value})
        refused(f"has {field}=", folder, config)
        change(folder, **{field: whole.get(field)})
    change(folder, init_lora_weights="pissa")
    refused("init_lora_weights='pissa'", folder, config)
    change(folder, init_lora_weights=True, r="2")
    refused("r='2' and lora_alpha=3", folder, config)
    change(folder, r=3)
    refused(r"lora_A.weight of shape \[2, 32\].*expected \[3, 32\]", folder, config)
    change(folder, peft_type="BOFT")
    refused("peft_type 'BOFT'; only", folder, config)
    change(folder, peft_type="LORA", r=2)
    refused("can only be read together with its model", folder, None)
    whole_layers = dict(safetensors.numpy.load_file(folder / "adapter_model.safetensors"))
    change_arrays(folder, lambda arrays: arrays.pop(Q0))
    refused("has lora_B.weight for encoder.block.0.*expected lora_A.weight and", folder, config)
    extra = {**whole_layers, "base_model.model.lm_head.lora_A.weight": np.ones((2, 32), np.float32)}
    change_arrays(folder, lambda arrays: arrays.update(extra))
    refused("contains lm_head, which this model doesn't have", folder, config)
    whole_layers[Q0] = np.full((2, 32), np.nan, np.float32)
    safetensors.numpy.save_file(
        whole_layers, folder / "adapter_model.safetensors", {"format": "pt"}
    )
    refused("encoder/attention/query/down has values that are NaN", folder, config)


@of_t5
def test_prefixes_that_do_not_fit_are_refused(model, saved):
    folder = saved("deep prompt")
    change(folder, token_dim=32)
    refused("token_dim=32.*expected 4 and 24", folder, model.config)
    change(folder, token_dim=24, num_layers=1)
    refused("num_layers=1.*expected 2 and 2", folder, model.config)
    change(folder, num_layers=3, num_virtual_tokens=4)
    refused(r"of shape \[3, 144\]; expected only prompt_embeddings", folder, model.config)


@of_t5
def test_what_peft_does_not_know_is_not_written(model, tmp_path):
    method = DeepPrompt(length=2, targets=attention_blocks(model.config))
    with pytest.raises(
        UserError, match="supports only decoder/self_attention, but this adapter has"
    ):
        save_peft_method(tmp_path, method, random_variables(method), {})
    assert not list(tmp_path.iterdir())
