"""Sizes of T5 small enough for a test, with layers enough to tell encoder and decoder apart."""

import dataclasses

from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.stack import Stack
from prompt_tuning.models.t5gemma_config import T5GemmaConfig

SMALL = T5Config(
    name="test",
    vocab_size=50,
    embed_dim=16,
    num_heads=2,
    head_dim=6,
    mlp_dim=24,
    num_encoder_layers=3,
    num_decoder_layers=2,
)
TINY = T5Config(
    name="tiny",
    vocab_size=24,
    embed_dim=12,
    num_heads=2,
    head_dim=5,
    mlp_dim=16,
    num_encoder_layers=1,
    num_decoder_layers=2,
)
_STACK = Stack(
    embed_dim=12,
    mlp_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    query_scalar=6.0,
    windows=(3, 0),
    attention_softcap=4.0,
)
_LLAMA = dataclasses.replace(
    _STACK, attention_softcap=0.0, unit_offset=False, post_norms=False, activation_name="silu"
)


def tiny_decoder(kind: str, stack: Stack, **fields) -> DecoderOnlyConfig:
    """A tiny decoder-only model; padding is that of the other families, for tests of them all."""
    ids = {"pad_id": 0, "eos_id": 1, "vocab_size": 32}
    return DecoderOnlyConfig(
        **{"name": "tiny", "kind": kind, "embed_dim": 12, "decoder": stack, **ids, **fields}
    )


_T5 = dataclasses.replace(TINY, vocab_size=32)
TINY_FAMILIES = {
    "t5": _T5,
    "umt5": dataclasses.replace(_T5, bias_per_layer=True),
    "t5gemma": T5GemmaConfig(
        name="tiny", vocab_size=32, embed_dim=12, encoder=_STACK, decoder=_STACK
    ),
    "gemma2": tiny_decoder(
        "gemma2", _STACK, tie_embeddings=True, final_softcap=3.0, scale_embeddings=True
    ),
    "qwen2": tiny_decoder(
        "qwen2", dataclasses.replace(_LLAMA, projection_bias=True, head_norms=True)
    ),
    "t5gemma2": T5GemmaConfig(
        name="tiny",
        vocab_size=32,
        embed_dim=12,
        encoder=dataclasses.replace(_STACK, head_norms=True, local_rope_theta=100.0),
        decoder=dataclasses.replace(_STACK, head_norms=True, local_rope_theta=100.0),
        merged=True,
    ),
}
"""Tiny models that differ in what their layers are made of; all have padding 0 and end 1."""
