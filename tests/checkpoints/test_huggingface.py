"""Parity with `transformers` on random weights: logits, greedy decoding and beam search."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.arrays.stored_arrays import array_in_memory, read_parameters
from prompt_tuning.checkpoints.frozen.huggingface import parameters_from_state
from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import unflatten
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VARIANTS = ("v1_1", "v1_0", "mt5", "umt5", "ul2", "madlad")
SIZE = {
    "vocab_size": 120,
    "d_model": 32,
    "d_kv": 6,  # heads * d_kv isn't d_model in T5 1.1 Small either
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
torch.set_num_threads(1)  # more of them only wait for each other on matrices this small
EXAMPLES, SOURCE, TARGET, PROMPT = 64, 24, 9, 5


def _reference(variant: str):
    """Returns a random model of `transformers`, and the config.json that its file would have."""
    torch.manual_seed(VARIANTS.index(variant))
    kind = {"mt5": "MT5", "umt5": "UMT5"}.get(variant, "T5")
    fields = {
        "v1_0": {"feed_forward_proj": "relu"},
        "ul2": {"feed_forward_proj": "gated-silu", "relative_attention_num_buckets": 64},
        "madlad": {"pad_token_id": 1, "eos_token_id": 2},
    }.get(variant, {})
    fields = {**SIZE, "feed_forward_proj": "gated-gelu", **fields}
    if kind == "T5" and variant != "v1_0":
        fields["tie_word_embeddings"] = False
    config = getattr(transformers, f"{kind}Config")(**fields)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if variant != "v1_0":  # transformers 5 ties them whatever the config says
        head = torch.randn(SIZE["vocab_size"], SIZE["d_model"])
        model.lm_head.weight = torch.nn.Parameter(head)
        model.config.tie_word_embeddings = False  # as published; transformers 5 scales a UMT5's
    else:  # with small residual branches a tied model repeats its last token
        for name, parameter in model.named_parameters():
            if name.startswith("decoder") and name.endswith((".o.weight", ".wo.weight")):
                parameter.data *= 10
    return model.eval(), {**config.to_dict(), "model_type": kind.lower()}


def _state(model) -> dict[str, np.ndarray]:
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    if model.config.pad_token_id == 1:  # MADLAD's files lack them; transformers 5 takes the head
        del state["shared.weight"], state["encoder.embed_tokens.weight"]
    return state


def _load(state, config, source="the test"):
    arrays = {name: array_in_memory(value) for name, value in state.items()}
    parameters = parameters_from_state(arrays, config, source=source)
    return config, unflatten(read_parameters(parameters, None))


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request):
    """A random model in `transformers`, and the same one here: (theirs, ours, frozen)."""
    model, fields = _reference(request.param)
    config = config_from_huggingface(fields, name=request.param)
    config, frozen = _load(_state(model), config)
    return model, T5(config), frozen


@pytest.fixture(scope="module")
def batch(pair) -> dict[str, np.ndarray]:
    """64 random inputs of 1 to 24 tokens, padded, with random targets."""
    pad_id = pair[1].config.pad_id
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, SOURCE + 1, EXAMPLES)
    tokens = rng.integers(2, SIZE["vocab_size"], (EXAMPLES, SOURCE))
    tokens = np.where(np.arange(SOURCE) < lengths[:, None], tokens, pad_id)
    targets = rng.integers(2, SIZE["vocab_size"], (EXAMPLES, TARGET))
    targets[:, 0] = 0
    return {
        "encoder_input_tokens": tokens.astype(np.int32),
        "decoder_input_tokens": targets.astype(np.int32),
    }


@pytest.fixture(scope="module")
def prompt() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(PROMPT, SIZE["d_model"])).astype(np.float32)


def _prompted(model, batch, prompt):
    """Returns `inputs_embeds` and `attention_mask` of the prompted inputs."""
    tokens = torch.from_numpy(batch["encoder_input_tokens"]).long()
    with torch.no_grad():
        embedded = model.shared(tokens)
    prompts = torch.from_numpy(prompt).expand(len(tokens), -1, -1)
    seen = torch.ones(len(tokens), len(prompt), dtype=torch.long)
    return {
        "inputs_embeds": torch.cat([prompts, embedded], dim=1),
        "attention_mask": torch.cat([seen, _visible(model, tokens)], dim=1),
    }


def _plain(model, batch):
    tokens = torch.from_numpy(batch["encoder_input_tokens"]).long()
    return {"input_ids": tokens, "attention_mask": _visible(model, tokens)}


def _visible(model, tokens):
    return (tokens != model.config.pad_token_id).long()


@pytest.mark.parametrize("prompted", [False, True])
def test_logits_agree(pair, batch, prompt, prompted, record_property):
    theirs, ours, frozen = pair
    inputs = _prompted(theirs, batch, prompt) if prompted else _plain(theirs, batch)
    injection = Injection(encoder_prompt=jnp.asarray(prompt)[None]) if prompted else Injection()
    with torch.no_grad():
        targets = torch.from_numpy(batch["decoder_input_tokens"]).long()
        expected = theirs(**inputs, decoder_input_ids=targets).logits.numpy()
    logits = jax.jit(ours.apply)({"params": frozen}, batch, injection)
    difference = float(np.abs(logits - expected).max())
    record_property("max_logit_difference", difference)
    print(f"{ours.config.name} prompted={prompted}: max logit difference {difference:.1e}")
    assert expected.std() > 0.5
    assert difference < 1e-4


@pytest.mark.parametrize("prompted", [False, True])
def test_greedy_decoding_agrees_token_for_token(pair, batch, prompt, prompted):
    theirs, ours, frozen = pair
    inputs = _prompted(theirs, batch, prompt) if prompted else _plain(theirs, batch)
    injection = Injection(encoder_prompt=jnp.asarray(prompt)[None]) if prompted else Injection()
    length = 14
    expected = theirs.generate(**inputs, max_new_tokens=length, do_sample=False, num_beams=1)
    tokens = generate(
        ours,
        frozen,
        batch["encoder_input_tokens"],
        injection,
        DecodingOptions(max_length=length),
    )
    expected = expected.numpy()[:, 1:]  # theirs begins with the start token
    assert len(np.unique(expected, axis=0)) > 20
    np.testing.assert_array_equal(tokens[:, : expected.shape[1]], expected)
    assert (tokens[:, expected.shape[1] :] == ours.config.pad_id).all()


def test_logits_agree_over_all_of_mt5s_vocabulary():
    torch.manual_seed(0)
    sizes = {"vocab_size": 250112, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1}
    theirs_config = transformers.MT5Config(**sizes, num_heads=2, feed_forward_proj="gated-gelu")
    theirs = transformers.MT5ForConditionalGeneration(theirs_config).eval()
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(sizes["vocab_size"], sizes["d_model"]))
    fields = {**theirs_config.to_dict(), "model_type": "mt5"}
    config, frozen = _load(_state(theirs), config_from_huggingface(fields, name="mt5"))
    tokens = np.array([[250111, 250000, 32128, 5, 1]], np.int32)
    with torch.no_grad():
        ids = torch.from_numpy(tokens).long()
        expected = theirs(input_ids=ids, decoder_input_ids=ids).logits.numpy()
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
    logits = jax.jit(T5(config).apply)({"params": frozen}, batch)
    assert logits.shape == (1, 5, 250112)
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_beam_search_agrees_token_for_token(pair, batch):
    theirs, ours, frozen = pair
    length, beams = 8, 3
    # Without a length penalty: theirs divides by tokens ** penalty, ours by ((5 + tokens) / 6).
    expected = theirs.generate(
        **_plain(theirs, batch),
        max_new_tokens=length,
        do_sample=False,
        num_beams=beams,
        length_penalty=0.0,
    ).numpy()[:, 1:]
    ends = expected == ours.config.eos_id
    after_end = np.cumsum(ends, axis=1) - ends > 0
    expected = np.where(after_end, ours.config.pad_id, expected)  # theirs repeats the end token
    options = DecodingOptions(max_length=length, method="beam", beam_size=beams, length_penalty=0.0)
    tokens = generate(ours, frozen, batch["encoder_input_tokens"], options=options)
    np.testing.assert_array_equal(tokens[:, : expected.shape[1]], expected)
    assert (tokens[:, expected.shape[1] :] == ours.config.pad_id).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_reads_a_folder(variant, tmp_path):
    model, _ = _reference(variant)
    folder = tmp_path / variant
    model.save_pretrained(folder)
    config, frozen = load_frozen(folder, dtype="bfloat16")
    assert config.name == variant
    assert config.tie_embeddings == (variant == "v1_0")
    expected = model.state_dict()["encoder.block.1.layer.0.SelfAttention.q.weight"].numpy()
    kernel = frozen["encoder"]["layers"]["attention"]["query"]["kernel"][1]
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel.reshape(32, 24), jnp.asarray(expected.T, jnp.bfloat16))


def test_lists_what_does_not_fit():
    model, fields = _reference("v1_1")
    config = config_from_huggingface(fields, name="broken")
    state = _state(model)
    del state["encoder.block.1.layer.1.DenseReluDense.wi_0.weight"]
    state["classifier.weight"] = np.zeros((2, 2), np.float32)
    state["shared.weight"] = state["shared.weight"][:-1]
    with pytest.raises(UserError) as error:
        _load(state, config, source="'broken'")
    message = str(error.value)
    assert "encoder.block.1.layer.1.DenseReluDense.wi_0.weight is missing" in message
    assert "classifier.weight is unexpected" in message
    assert "shared.weight has shape (119, 32), expected (120, 32)" in message


def test_a_separate_head_in_a_tied_model_is_told():
    model, fields = _reference("v1_0")
    state = _state(model)
    state["lm_head.weight"] = state["lm_head.weight"] + 1.0
    config = config_from_huggingface(fields, name="odd")
    with pytest.raises(
        UserError,
        match="different values for lm_head.weight and shared.weight.*tie_word_embeddings",
    ):
        _load(state, config, source="'odd'")
    state = _state(model)
    state["decoder.embed_tokens.weight"] = state["shared.weight"] + 1.0
    with pytest.raises(
        UserError, match="different values for decoder.embed_tokens.weight and shared.weight"
    ):
        _load(state, config, source="'odd'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "gpt2"}', "'gpt2'; expected one of 't5'"),
        ('{"model_type": "t5", "feed_forward_proj": "gated-tanh"}', "feed_forward_proj"),
        ('{"model_type": "t5"}', "vocab_size"),
        ("{", "Can't read"),
    ],
)
def test_a_folder_of_another_model_is_told(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_frozen(tmp_path)


def test_shards_are_joined(tmp_path):
    model, fields = _reference("v1_1")
    from safetensors.numpy import save_file

    state = {
        name: np.ascontiguousarray(value)
        for name, value in _state(model).items()
        if "embed_tokens" not in name
    }
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: state[name] for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    _, frozen = load_frozen(tmp_path)
    np.testing.assert_array_equal(
        frozen["decoder"]["logits_dense"]["kernel"], state["lm_head.weight"].T
    )
