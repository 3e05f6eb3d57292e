"""Decoder-only models: what `transformers` computes of tiny random ones, through its files."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.families import model_of
from prompt_tuning.models.injection import Injection, KeyValue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

EOS = 7
SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "rms_norm_eps": 1e-3,
    "eos_token_id": EOS,
    "bos_token_id": 5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 16,
}
FAR = {
    "full_attention": {"rope_type": "linear", "rope_theta": 200.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
VARIANTS = {
    "gemma2": ("Gemma2", {"sliding_window": 3, "query_pre_attn_scalar": 5}),
    "gemma2 with odd caps": (
        "Gemma2",
        {"sliding_window": 4, "layer_types": MIXED, "hidden_activation": "silu"}
        | {"attn_logit_softcapping": 1.0, "final_logit_softcapping": None},
    ),
    "gemma3": (
        "Gemma3Text",
        {"sliding_window": 3, "layer_types": MIXED, "rope_parameters": FAR},
    ),
    "llama": ("Llama", {"num_key_value_heads": 4}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 4}),
    "mistral everywhere": ("Mistral", {"sliding_window": None, "head_dim": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2 in windows": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
        | {"tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 30.0}}),
}
FEW = ("gemma3", "llama3")
RNG = np.random.default_rng(0)
SOURCES = RNG.integers(9, 60, (4, 12)).astype(np.int32)
TARGETS = RNG.integers(9, 60, (4, 6)).astype(np.int32)
LENGTHS = (12, 7, 1, 10)
for _row, _length in zip(SOURCES, LENGTHS, strict=True):
    _row[_length:] = -1


@functools.cache
def reference(variant: str):
    torch.manual_seed(0)
    kind, fields = VARIANTS[variant]
    fields = {**SIZES, **fields}
    if kind == "Qwen2":
        fields.pop("head_dim")
    config = getattr(transformers, f"{kind}Config")(**fields)
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).eval()
    model.set_attn_implementation("eager")  # the others have no soft cap
    for parameter in model.parameters():
        scale = 0.5 if parameter.ndim == 1 else 0.3
        parameter.data = torch.randn_like(parameter) * scale
    return model


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in VARIANTS],
)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def few(variant):
    if variant not in FEW:
        pytest.skip("two variants are enough")


@pytest.fixture(scope="module")
def theirs(variant):
    return reference(variant)


@pytest.fixture(scope="module")
def folder(theirs, variant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / variant.replace(" ", "_")
    sharded = {"max_shard_size": "5KB"} if variant == "llama3" else {}
    theirs.save_pretrained(folder, **sharded)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    config, frozen = load_frozen(folder)
    return model_of(config), frozen


def rows_of_theirs(model, prompt=None, before=0):
    """Yields an input's embeddings with a prompt and its target's, and their positions' mask.

    Args:
      model: theirs.
      prompt: [prompt, embed], as wide as what enters the layers.
      before: number of cached positions.
    """
    table = model.get_input_embeddings()
    scale = getattr(table, "embed_scale", torch.tensor(1.0))
    for source, target in zip(SOURCES, TARGETS, strict=True):
        ids = torch.tensor([*source[source >= 0], *target[:-1]]).long()[None]
        vectors = table(ids)
        if prompt is not None:
            given = torch.from_numpy(np.array(prompt))[None] / scale
            given = given if hasattr(table, "embed_scale") else given * scale
            vectors = torch.cat([given * scale, vectors], dim=1)
        yield vectors, torch.arange(vectors.shape[1])[None] + before


def logits_of_theirs(model, prompt=None, cache=None, before=0):
    found = []
    with torch.no_grad():
        for vectors, positions in rows_of_theirs(model, prompt, before):
            past = None if cache is None else cache()
            logits = model(
                inputs_embeds=vectors, position_ids=positions, past_key_values=past, use_cache=False
            ).logits
            found.append(logits[0, -TARGETS.shape[1] :].numpy())
    return np.stack(found)


@functools.partial(jax.jit, static_argnums=0)
def applied(model, frozen, batch, injection):
    return model.apply({"params": frozen}, batch, injection)


def logits_of(model, frozen, injection=Injection(), targets=TARGETS):
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    batch = {"encoder_input_tokens": SOURCES, "decoder_input_tokens": shifted}
    return applied(model, frozen, batch, injection)


@pytest.mark.parametrize("prompted", [False, True])
def test_logits_agree(theirs, ours, prompted):
    model, frozen = ours
    prompt = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)
    expected = logits_of_theirs(theirs, prompt if prompted else None)
    assert expected.std() > 0.3
    injection = Injection(encoder_prompt=jnp.asarray(prompt)[None]) if prompted else Injection()
    np.testing.assert_allclose(logits_of(model, frozen, injection), expected, atol=1e-4)


def test_prefixes_are_cached_keys_and_values(theirs, ours, few, variant):
    if variant == "gemma3":
        pytest.skip("a prefix there is in windows too, here in none")
    model, frozen = ours
    stack = model.config.decoder
    shape = (2, stack.num_layers, 1, stack.num_kv_heads, 3, stack.head_dim)
    key, value = np.random.default_rng(2).normal(size=shape).astype(np.float32)

    def cache():
        past = transformers.DynamicCache()
        for layer in range(stack.num_layers):
            past.update(torch.from_numpy(key[layer]), torch.from_numpy(value[layer]), layer)
        return past

    expected = logits_of_theirs(theirs, cache=cache, before=3)
    prefixes = {"decoder/self_attention": KeyValue(key=key, value=value)}
    found = logits_of(model, frozen, Injection(prefixes=prefixes))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_agrees_token_for_token(theirs, ours, few, beams):
    model, frozen = ours
    options = {"num_beams": beams, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    options |= {"length_penalty": 0.0} if beams > 1 else {}
    padded = np.full_like(SOURCES, 0)  # theirs is padded on the left
    for row, source in zip(padded, SOURCES, strict=True):
        row[len(row) - (source >= 0).sum() :] = source[source >= 0]
    tokens = torch.tensor(padded).long()
    expected = theirs.generate(tokens, attention_mask=(tokens > 0).long(), **options)
    expected = expected.numpy()[:, SOURCES.shape[1] :]
    ends = expected == EOS
    expected = np.where(np.cumsum(ends, axis=1) - ends > 0, -1, expected)
    assert len(np.unique(expected, axis=0)) > 2
    method = DecodingOptions(max_length=8, length_penalty=0.0)
    if beams > 1:
        method = DecodingOptions(max_length=8, method="beam", beam_size=3, length_penalty=0.0)
    found = np.asarray(generate(model, frozen, SOURCES, options=method))
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)


def test_labels_are_ranked_by_their_logits(ours, few):
    model, frozen = ours
    labels = jnp.array([[*TARGETS[0, :3], EOS], [*TARGETS[1, :2], EOS, -1]], jnp.int32)
    found = label_log_likelihoods(model, frozen, jnp.asarray(SOURCES), Injection(), labels)
    for column, label in enumerate(labels):
        logits = jax.nn.log_softmax(logits_of(model, frozen, targets=np.tile(label, (4, 1))))
        of_label = sum(logits[:, i, id_] for i, id_ in enumerate(label) if id_ >= 0)
        np.testing.assert_allclose(found[:, column], of_label, atol=1e-4)


def test_our_own_file_gives_the_model_back(ours, few, tmp_path):
    model, frozen = ours
    file = tmp_path / "weights.safetensors"
    save_weights(file, frozen, model.config)
    config, again = load_frozen(file)
    assert config == model.config
    jax.tree.map(np.testing.assert_array_equal, again, frozen)


def test_quantized_weights_are_close(folder, ours, few):
    model, exact = ours
    options = {"quantization": "int8", "quantization_block": 16}
    _, rounded = load_frozen(folder, **options)
    expected = logits_of(model, exact, Injection())
    found = logits_of(model_of(model.config, Compute(**options)), rounded, Injection())
    assert 0 < np.abs(found - expected).max() < 0.5


def test_the_text_of_a_gemma_with_images(tmp_path):
    theirs = reference("gemma3")
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    outer = {"model_type": "gemma3", "eos_token_id": [EOS, 8], "text_config": config}
    (tmp_path / "config.json").write_text(json.dumps(outer))
    file = tmp_path / "model.safetensors"
    arrays = {f"language_model.{name}": array for name, array in load_file(file).items()}
    arrays["vision_tower.vision_model.embeddings.weight"] = np.zeros(3, np.float32)
    save_file(arrays, file)
    config, frozen = load_frozen(tmp_path)
    assert (config.kind, config.eos_id, config.pad_id) == ("gemma3", EOS, -1)
    found = logits_of(model_of(config), frozen)
    np.testing.assert_allclose(found, logits_of_theirs(theirs), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias=True, which isn't supported"),
        ("llama", {"mlp_bias": True}, "mlp_bias=True, which isn't supported"),
        ("llama", {"hidden_act": "tanh"}, "hidden_act='tanh'; expected one of"),
        ("llama", {"rope_scaling": {"rope_type": "yarn"}}, "rope_type 'default' or 'linear'"),
        ("llama", {"rope_scaling": {"type": "llama3"}}, "rope_factor is None; expected a number"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "which isn't supported"),
        ("llama", {"num_attention_heads": 5}, "5 heads of 6 for 2 of keys and values"),
        ("llama", {"head_dim": "6"}, "head_dim is '6'"),
        ("llama", {"num_hidden_layers": 10**9}, "for 1000000000 layers"),
        ("llama", {"quantization_config": {}}, "quantization_config={}, which isn't supported"),
        ("llama", {"tie_word_embeddings": 1}, "tie_word_embeddings=1; expected true or false"),
        ("llama", {"eos_token_id": 60}, "eos_id is 60; expected an integer from 0 to below 60"),
        ("mistral", {"sliding_window": 0}, "sliding_window=0; expected an integer"),
        ("gemma3", {"text_config": 3}, "text_config=3; expected a JSON object"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma2", {"final_logit_softcapping": -1}, "final_logit_softcapping=-1; expected a n"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types=.* for 3 layers"),
        ("qwen2_moe", {}, "model type 'qwen2_moe'; expected one of"),
    ],
)
def test_what_is_not_supported_is_refused_by_field(kind, fields, message):
    config = {"model_type": kind, **SIZES, **fields}
    with pytest.raises(UserError, match=message) as error:
        config_from_huggingface(json.loads(json.dumps(config)), name="x")
    assert not re.search("\n", str(error.value))
