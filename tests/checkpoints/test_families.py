"""Each published family as it is published: its config.json, its files, and T5X's layout of it.

`test_huggingface.py` compares whole state dicts with `transformers`; here models go through files,
in each of the forms that the hub and T5X have, and compute what `transformers` computes.
"""

import dataclasses
import functools
import json

import jax
import msgpack
import numpy as np
import pytest

from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.layouts import check_size
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.models.config import MODELS
from prompt_tuning.models.t5 import T5

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# What the config.json of each published Small says; sizes stand beside what makes its family.
COMMON = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}


def _layers(encoder: int, decoder: int) -> dict[str, int]:
    return {"num_layers": encoder, "num_decoder_layers": decoder}


V1_1 = {"d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
V1_1 |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
PUBLISHED = {
    "google-t5/t5-small": ("t5_small", {"d_ff": 2048, "num_heads": 8, "num_layers": 6}),
    "google/t5-v1_1-small": ("t5_1_1_small", V1_1),
    "google/t5-small-lm-adapt": ("t5_1_1_small", V1_1),
    "google/flan-t5-small": (
        "t5_1_1_small",
        V1_1 | {"n_positions": 512, "relative_attention_max_distance": 128},
    ),
    "google/mt5-small": (
        "mt5_small",
        V1_1 | {"model_type": "mt5", "vocab_size": 250112, "tokenizer_class": "T5Tokenizer"},
    ),
    "google/umt5-small": (
        "umt5_small",
        V1_1 | {"model_type": "umt5", "vocab_size": 256384, "scalable_attention": True},
    ),
    "google/byt5-small": (
        "byt5_small",
        V1_1 | {"vocab_size": 384, "d_model": 1472, "d_ff": 3584} | _layers(12, 4),
    ),
    "google/flan-ul2": (
        "ul2_20b",
        V1_1
        | {"d_model": 4096, "d_ff": 16384, "d_kv": 256, "num_heads": 16}
        | {"feed_forward_proj": "gated-silu", "dense_act_fn": "silu", "is_gated_act": True}
        | _layers(32, 32),
    ),
    "google/madlad400-3b-mt": (
        "madlad400_3b",
        V1_1
        | {"d_model": 1024, "d_ff": 8192, "d_kv": 128, "num_heads": 16, "vocab_size": 256000}
        | {"pad_token_id": 1, "eos_token_id": 2}
        | _layers(32, 32),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_of_each_family(name):
    architecture, fields = PUBLISHED[name]
    config = config_from_huggingface(COMMON | fields, name=name)
    check_size(config, MODELS[architecture], source=name)
    named = {"name": name, "decoder_start_id": 0}
    assert config == dataclasses.replace(MODELS[architecture], **named)


TINY = {"vocab_size": 60, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_heads": 3}
TINY |= {"num_decoder_layers": 2, "dropout_rate": 0.0}
UNUSED_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
FAMILIES = {
    "t5-v1_0": "google-t5/t5-small",
    "flan": "google/flan-t5-small",
    "mt5": "google/mt5-small",
    "umt5": "google/umt5-small",
}


@functools.cache
def reference(family: str):
    """A tiny random model of a family in `transformers`, and the config.json of its kind."""
    torch.manual_seed(0)
    fields = COMMON | PUBLISHED[FAMILIES[family]][1] | TINY
    kind = family.upper() if family.endswith("mt5") else "T5"
    options = {"feed_forward_proj": fields.get("feed_forward_proj", "relu")}
    if family == "flan":  # of a T5 it decides whether the decoder's output is scaled
        options["tie_word_embeddings"] = False
    config = getattr(transformers, f"{kind}Config")(**TINY, **options)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if family == "t5-v1_0":  # with small residual branches a tied model repeats its last token
        for name, parameter in model.named_parameters():
            if name.startswith("decoder") and name.endswith((".o.weight", ".wo.weight")):
                parameter.data *= 10
    else:  # transformers 5 ties them whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.randn(60, 16))
        model.config.tie_word_embeddings = False  # or it saves the head as a copy of the table
    return model.eval(), fields


def state_of(family: str) -> dict:
    """The arrays as the hub's older files have them, with copies and with what is unused."""
    state = dict(reference(family)[0].state_dict())
    if family == "t5-v1_0":
        state[UNUSED_BIAS] = torch.randn(32, 3)
    return state


def save_safetensors(folder, family, size="1GB"):
    reference(family)[0].save_pretrained(folder, max_shard_size=size)
    (folder / "config.json").write_text(json.dumps(reference(family)[1]))


def save_torch(folder, family, *, zipped=True, shards=1):
    state = state_of(family)
    names = sorted(state)
    (folder / "config.json").write_text(json.dumps(reference(family)[1]))
    if shards == 1:
        file = folder / "pytorch_model.bin"
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        return
    weight_map = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05}-of-{shards:05}.bin"
        held = names[number::shards]
        torch.save({name: state[name].clone() for name in held}, folder / file)
        weight_map |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


FORMS = {
    "safetensors": save_safetensors,
    "safetensors in shards": functools.partial(save_safetensors, size="8KB"),
    "pytorch_model.bin": save_torch,
    "pytorch_model.bin of old": functools.partial(save_torch, zipped=False),
    "pytorch_model.bin in shards": functools.partial(save_torch, shards=3),
}


def logits(family, path) -> np.ndarray:
    """What we compute with the model at `path`, and what `transformers` does with its own."""
    config, frozen = load_frozen(path)
    rng = np.random.default_rng(0)
    batch = {
        "encoder_input_tokens": rng.integers(2, 60, (3, 24)).astype(np.int32),
        "decoder_input_tokens": rng.integers(2, 60, (3, 7)).astype(np.int32),
    }
    ids, targets = (torch.from_numpy(tokens).long() for tokens in batch.values())
    with torch.no_grad():
        expected = reference(family)[0](input_ids=ids, decoder_input_ids=targets).logits.numpy()
    assert expected.std() > 0.5
    return np.asarray(_apply(T5(config), frozen, batch)), expected


@functools.partial(jax.jit, static_argnums=0)
def _apply(model, frozen, batch):
    return model.apply({"params": frozen}, batch)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_the_hub_computes_what_transformers_does(tmp_path, family, form):
    folder = tmp_path / family  # so that all forms have one name, and one program is compiled
    folder.mkdir()
    FORMS[form](folder, family)
    shards = len(list(folder.glob("*-of-*")))
    assert shards > 1 if "shards" in form else shards == 0
    found, expected = logits(family, folder)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_t5xs_layout_computes_what_transformers_does(tmp_path, family):
    """Kernels [in, out] with heads folded, the bias [heads, buckets]; names written out here."""
    target: dict = {}
    for name, array in t5x_arrays(state_of(family), family == "umt5").items():
        *folders, last = name.split("/")
        node = target
        for folder in folders:
            node = node.setdefault(folder, {})
        content = (array.shape, array.dtype.name, array.tobytes())
        node[last] = msgpack.ExtType(1, msgpack.packb(content))
    path = tmp_path / family
    path.write_bytes(msgpack.packb({"version": 3, "optimizer": {"target": target, "state": {}}}))
    found, expected = logits(family, path)
    np.testing.assert_allclose(found, expected, atol=1e-4)


NORMS = {
    "encoder": ("pre_attention_layer_norm", "pre_mlp_layer_norm"),
    "decoder": (
        "pre_self_attention_layer_norm",
        "pre_cross_attention_layer_norm",
        "pre_mlp_layer_norm",
    ),
}
MODULES = {
    ("encoder", "SelfAttention"): "attention",
    ("decoder", "SelfAttention"): "self_attention",
    ("decoder", "EncDecAttention"): "encoder_decoder_attention",
}
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "o": "out"}


def t5x_arrays(state, per_layer: bool) -> dict[str, np.ndarray]:
    arrays = {"token_embedder/embedding": state["shared.weight"]}
    if not torch.equal(state["lm_head.weight"], state["shared.weight"]):
        arrays["decoder/logits_dense/kernel"] = state["lm_head.weight"].T
    for name, tensor in state.items():
        stack, *parts, _ = name.split(".")
        if parts == ["final_layer_norm"]:
            arrays[f"{stack}/{stack}_norm/scale"] = tensor
        if name == UNUSED_BIAS or parts[:1] != ["block"]:
            continue
        _, layer, _, sublayer, module, *projection = parts
        prefix = f"{stack}/layers_{layer}"
        if module == "layer_norm":
            arrays[f"{prefix}/{NORMS[stack][int(sublayer)]}/scale"] = tensor
        elif projection == ["relative_attention_bias"]:
            where = prefix if per_layer else stack
            arrays[f"{where}/relpos_bias/rel_embedding"] = tensor.T
        elif module == "DenseReluDense":
            arrays[f"{prefix}/mlp/{projection[0]}/kernel"] = tensor.T
        else:
            place = f"{prefix}/{MODULES[stack, module]}/{PROJECTIONS[projection[0]]}"
            arrays[f"{place}/kernel"] = tensor.T
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in arrays.items()}
