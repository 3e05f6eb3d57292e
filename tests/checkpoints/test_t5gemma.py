"""T5Gemma: what `transformers` computes of tiny random models, through the files that it writes."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.huggingface_export import save_huggingface
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import flatten, save_weights, unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.families import model_of
from prompt_tuning.models.injection import Injection

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

STACK = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "query_pre_attn_scalar": 5,
    "sliding_window": 3,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
    "rms_norm_eps": 1e-3,
}
VARIANTS = {
    "as published": ({}, {}, {}),
    "unbalanced": (
        {},
        {"hidden_size": 20, "intermediate_size": 12, "num_key_value_heads": 1}
        | {"num_hidden_layers": 2, "head_dim": 4},
        {},
    ),
    "uncapped, untied, all global": (
        {"attn_logit_softcapping": None, "layer_types": ["full_attention"] * 3},
        {"final_logit_softcapping": None, "hidden_activation": "silu"},
        {"tie_word_embeddings": False},
    ),
    "other positions and ids": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
        | {"bos_token_id": 5, "eos_token_id": [7, 8], "pad_token_id": 3},
        {},
    ),
}
OF_GEMMA3 = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
VARIANTS["T5Gemma 2"] = (
    {**OF_GEMMA3, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
    | {"num_hidden_layers": 2, "intermediate_size": 20},
    {**OF_GEMMA3, "sliding_window_pattern": 2, "bos_token_id": 5},
    {},
)
TINY_IMAGES = {
    "vision_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    | {"num_attention_heads": 1, "image_size": 4, "patch_size": 2},
    "mm_tokens_per_image": 4,
}
RNG = np.random.default_rng(0)
SOURCES = RNG.integers(9, 60, (5, 12)).astype(np.int32)
TARGETS = RNG.integers(9, 60, (5, 7)).astype(np.int32)


@functools.cache
def reference(variant: str):
    torch.manual_seed(0)
    encoder, decoder, fields = VARIANTS[variant]
    ids = {key: value for key, value in decoder.items() if key.endswith("_id")}
    encoder, decoder = {**STACK, **encoder, **ids}, {**STACK, **decoder}
    if variant == "T5Gemma 2":
        encoder = {"text_config": encoder, **TINY_IMAGES}
        config = transformers.T5Gemma2Config(encoder=encoder, decoder=decoder)
        model = transformers.T5Gemma2ForConditionalGeneration(config).eval()
    else:
        config = transformers.T5GemmaConfig(
            encoder=encoder, decoder=decoder, vocab_size=60, **fields
        )
        model = transformers.T5GemmaForConditionalGeneration(config).eval()
    model.set_attn_implementation("eager")  # the others have no soft cap
    for parameter in model.parameters():
        scale = 0.5 if parameter.ndim == 1 else 0.3
        parameter.data = torch.randn_like(parameter) * scale
    return model


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def theirs(variant):
    return reference(variant)


@pytest.fixture(scope="module")
def folder(theirs, variant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / variant.split(",")[0].replace(" ", "_")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    config, frozen = load_frozen(folder)
    return model_of(config), frozen


def batch_of(config):
    sources, targets = SOURCES.copy(), TARGETS.copy()
    sources[1, 7:] = sources[2, 3:] = config.pad_id
    targets[:, 0] = config.start_id
    return {"encoder_input_tokens": sources, "decoder_input_tokens": targets}


def inputs_of(config):
    tokens = torch.tensor(batch_of(config)["encoder_input_tokens"]).long()
    return {"input_ids": tokens, "attention_mask": (tokens != config.pad_id).long()}


def their_logits(theirs, config, **inputs):
    targets = torch.tensor(batch_of(config)["decoder_input_tokens"]).long()
    inputs = inputs or inputs_of(config)
    with torch.no_grad():
        return theirs(**inputs, decoder_input_ids=targets, use_cache=False).logits.numpy()


@functools.partial(jax.jit, static_argnums=0)
def logits_of(model, frozen, batch, injection):
    return model.apply({"params": frozen}, batch, injection)


@pytest.mark.parametrize("prompted", [False, True])
def test_logits_agree(theirs, ours, prompted):
    model, frozen = ours
    config, inputs, injection = model.config, inputs_of(model.config), Injection()
    if prompted:
        prompt = np.random.default_rng(1).normal(size=(1, 4, 16)).astype(np.float32)
        injection = Injection(encoder_prompt=jnp.asarray(prompt))
        with torch.no_grad():
            tokens = theirs.get_input_embeddings()(inputs.pop("input_ids"))
        # T5Gemma scales what it is given; a prompt of ours is as wide as what enters the layers.
        scale = 1 if config.merged else config.embedding_scale
        vectors = torch.from_numpy(prompt / np.float32(scale)).expand(5, -1, -1)
        inputs["inputs_embeds"] = torch.cat([vectors, tokens], dim=1)
        seen = torch.ones(5, 4, dtype=torch.long)
        inputs["attention_mask"] = torch.cat([seen, inputs["attention_mask"]], dim=1)
    expected = their_logits(theirs, config, **inputs)
    assert expected.std() > 0.5
    found = logits_of(model, frozen, batch_of(config), injection)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_agrees_token_for_token(theirs, ours, variant, beams):
    if variant not in ("as published", "unbalanced", "T5Gemma 2"):
        pytest.skip("three variants are enough")
    model, frozen = ours
    config = model.config
    options = {"num_beams": beams, "max_new_tokens": 8, "do_sample": False}
    options |= {"length_penalty": 0.0} if beams > 1 else {}
    expected = theirs.generate(**inputs_of(config), **options).numpy()[:, 1:]
    ends = expected == config.eos_id
    expected = np.where(np.cumsum(ends, axis=1) - ends > 0, config.pad_id, expected)
    assert len(np.unique(expected, axis=0)) > 3
    method = DecodingOptions(max_length=8, beam_size=beams, length_penalty=0.0)
    if beams > 1:
        method = DecodingOptions(max_length=8, method="beam", beam_size=3, length_penalty=0.0)
    sources = batch_of(config)["encoder_input_tokens"]
    found = np.asarray(generate(model, frozen, sources, options=method))
    np.testing.assert_array_equal(found[:, : expected.shape[1]], expected)


def test_our_own_file_gives_the_model_back(ours, tmp_path):
    model, frozen = ours
    file = tmp_path / "weights.safetensors"
    save_weights(file, frozen, model.config)
    config, again = load_frozen(file)
    assert config == model.config
    jax.tree.map(np.testing.assert_array_equal, again, frozen)


def test_transformers_computes_the_same_with_our_folder(ours, tmp_path):
    model, frozen = ours
    others = {name: np.asarray(1.1 * leaf) for name, leaf in flatten(frozen).items()}
    folder = tmp_path / model.config.name
    folder.mkdir()
    if model.config.merged:
        with pytest.raises(UserError, match="family t5gemma2, which can't be written"):
            save_huggingface(folder, others.__getitem__, model.config, "float32")
        return
    save_huggingface(folder, others.__getitem__, model.config, "float32")
    assert load_frozen(folder)[0] == model.config
    saved = transformers.T5GemmaForConditionalGeneration.from_pretrained(folder).eval()
    saved.set_attn_implementation("eager")
    found = logits_of(model, unflatten(others), batch_of(model.config), Injection())
    np.testing.assert_allclose(found, their_logits(saved, model.config), atol=1e-4)


def test_quantized_weights_are_close(folder, variant):
    if variant != "as published":
        pytest.skip("one variant is enough")
    config, exact = load_frozen(folder)
    _, rounded = load_frozen(folder, quantization="int8", quantization_block=16)
    batch = batch_of(config)
    expected = logits_of(model_of(config), exact, batch, Injection())
    compute = Compute(quantization="int8", quantization_block=16)
    found = logits_of(model_of(config, compute), rounded, batch, Injection())
    assert 0 < np.abs(found - expected).max() < 0.3


def test_the_ids_are_those_of_the_file():
    config = config_from_huggingface(
        reference("other positions and ids").config.to_dict(), name="x"
    )
    assert (config.pad_id, config.eos_id, config.start_id) == (3, 7, 5)


@pytest.mark.parametrize(
    ("stack", "fields", "message"),
    [
        ({"attention_bias": True}, {}, "attention_bias=True, which isn't supported"),
        ({"hidden_activation": "tanh"}, {}, "hidden_activation='tanh'; expected one of"),
        ({"layer_types": ["full_attention"]}, {}, "layer_types=.* for 3 layers"),
        ({"layer_types": ["chunked_attention"] * 3}, {}, "expected sliding_attention or full_"),
        ({"sliding_window": 0}, {}, "sliding_window=0; expected an integer"),
        ({"rope_parameters": {"rope_type": "yarn"}}, {}, "rope_type 'default'"),
        ({"attn_logit_softcapping": -1}, {}, "attn_logit_softcapping=-1; expected a number"),
        ({"head_dim": "6"}, {}, "head_dim is '6'"),
        ({"num_hidden_layers": 10**9}, {}, "for 1000000000 layers"),
        ({"vocab_size": 61}, {}, "vocab_size=61 in encoder, but 60 elsewhere"),
        ({}, {"decoder": 3}, "decoder=3; expected a JSON object"),
        ({}, {"quantization_config": {}}, "quantization_config={}, which isn't supported"),
        ({}, {"tie_word_embeddings": 1}, "tie_word_embeddings=1; expected true or false"),
    ],
)
def test_what_is_not_supported_is_refused_by_field(stack, fields, message):
    config = {"model_type": "t5gemma", "vocab_size": 60}
    config |= {"encoder": {**STACK, **stack}, "decoder": STACK, **fields}
    with pytest.raises(UserError, match=message) as error:
        config_from_huggingface(json.loads(json.dumps(config)), name="x")
    assert not re.search("\n", str(error.value))
