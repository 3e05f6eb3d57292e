"""Sizes of T5 small enough for a test, with layers enough to tell encoder and decoder apart."""

import dataclasses

from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5gemma_config import Stack, T5GemmaConfig

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
_T5 = dataclasses.replace(TINY, vocab_size=32)
TINY_FAMILIES = {
    "t5": _T5,
    "umt5": dataclasses.replace(_T5, bias_per_layer=True),
    "t5gemma": T5GemmaConfig(
        name="tiny", vocab_size=32, embed_dim=12, encoder=_STACK, decoder=_STACK
    ),
}
"""Tiny models that differ in what their layers are made of; all have padding 0 and end 1."""
