"""Decoder-only architectures: Gemma 2 and 3, Llama 3, Mistral, Qwen 2.5 and Qwen 3.

One table of parameters and one module (decoder_only.py) for all; their `Stack`s differ.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.parameters import ModelConfig, Parameter
from prompt_tuning.models.stack import Stack, block_modules, check_names, check_number

KINDS = ("gemma2", "gemma3", "llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, kw_only=True)
class DecoderOnlyConfig(ModelConfig):
    """Architecture of a decoder-only model.

    Attributes:
      kind: one of `KINDS`.
      decoder: the layers.
      tie_embeddings: whether the embedding table is also the output layer.
      final_softcap: bound of the output's logits; 0 for none.
      scale_embeddings: whether embeddings are multiplied by the square root of their width.
      pad_id: what batches are padded with. The model only masks it, so a vocabulary without
        padding, or one that ends sequences by it, has -1, which is no token's.
    """

    kind: str
    decoder: Stack
    tie_embeddings: bool = False
    final_softcap: float = 0.0
    scale_embeddings: bool = False
    pad_id: int = -1
    eos_id: int = 2

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.kind

    @property
    def embedding_scale(self) -> float:
        """The factor of the embedding table's rows in the input."""
        return self.embed_dim**0.5 if self.scale_embeddings else 1.0

    @property
    def num_decoder_layers(self) -> int:
        """The number of layers."""
        return self.decoder.num_layers

    def parameters(self) -> tuple[Parameter, ...]:
        """Returns one row per parameter of the model."""
        row = functools.partial(self.decoder.parameter, vocab_size=self.vocab_size)
        before_mlp = "pre_feedforward" if self.decoder.post_norms else "post_attention"
        blocks = (
            ("self_attention", "self_attn", ("input_layernorm", "post_attention_layernorm")),
            ("mlp", "mlp", (f"{before_mlp}_layernorm", "post_feedforward_layernorm")),
        )
        rows = [row("token_embedder/embedding", "model.embed_tokens")]
        for name, theirs, norms in blocks:
            for module, their_module in block_modules(
                self.decoder, name, name, theirs, norms
            ).items():
                rows.append(
                    row(f"decoder/layers/{module}", f"model.layers.{{layer}}.{their_module}")
                )
        rows.append(row("decoder/decoder_norm/scale", "model.norm"))
        if not self.tie_embeddings:
            rows.append(row("decoder/logits_dense/kernel", "lm_head"))
        return tuple(rows)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "DecoderOnlyConfig":
        """Returns the config written by `to_json`; raises UserError if it isn't one."""
        check_names(fields, {field.name: field for field in dataclasses.fields(cls)})
        if not isinstance(fields.get("decoder"), dict):
            raise UserError(f"decoder is {shown(fields.get('decoder'))}; expected a JSON object.")
        if fields.get("kind") not in KINDS:
            raise UserError(f"kind is {shown(fields.get('kind'))}; expected one of {KINDS}.")
        if type(fields.get("name")) is not str:
            raise UserError(f"name is {shown(fields.get('name'))}; expected a string.")
        check_number("vocab_size", fields.get("vocab_size"), int, 1)
        check_number("pad_id", fields.get("pad_id", -1), int, -1, fields["vocab_size"])
        check_number("eos_id", fields.get("eos_id", 2), int, 0, fields["vocab_size"])
        check_number("final_softcap", fields.get("final_softcap", 0.0), float, 0)
        for name in ("tie_embeddings", "scale_embeddings"):
            if type(fields.get(name, False)) is not bool:
                raise UserError(f"{name} is {shown(fields[name])}; expected true or false.")
        decoder = Stack.of(fields["decoder"])
        if fields.get("embed_dim", decoder.embed_dim) != decoder.embed_dim:
            raise UserError(
                f"embed_dim is {shown(fields['embed_dim'])}; expected the decoder's, "
                f"{decoder.embed_dim}."
            )
        return cls(**{"embed_dim": decoder.embed_dim, **fields, "decoder": decoder})


def _gemma(
    size: tuple[int, int, int, int, int, int], pattern: int, window: int, **changes: Any
) -> Stack:
    """Returns a Gemma's stack, of which each `pattern`-th layer sees everything."""
    embed_dim, mlp_dim, layers, heads, kv_heads, head_dim = size
    return Stack(
        **{
            "embed_dim": embed_dim,
            "mlp_dim": mlp_dim,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "query_scalar": float(head_dim),
            "windows": tuple(window if (i + 1) % pattern else 0 for i in range(layers)),
            **changes,
        }
    )


def _plain(size: tuple[int, int, int, int, int, int], **changes: Any) -> Stack:
    """Returns the stack of a Llama or of a model alike."""
    return _gemma(
        size,
        1,
        0,
        **{
            "attention_softcap": 0.0,
            "activation_name": "silu",
            "unit_offset": False,
            "post_norms": False,
            **changes,
        },
    )


def _models(
    kind: str, vocab_size: int, stacks: Mapping[str, Stack], tied: tuple[str, ...], **fields: Any
) -> dict[str, DecoderOnlyConfig]:
    return {
        name: DecoderOnlyConfig(
            name=name,
            kind=kind,
            vocab_size=vocab_size,
            embed_dim=stack.embed_dim,
            decoder=stack,
            tie_embeddings=name in tied,
            **fields,
        )
        for name, stack in stacks.items()
    }


# embed_dim, mlp_dim, layers, heads, heads of keys and values, head_dim
_GEMMA2 = {
    "gemma2_2b": _gemma((2304, 9216, 26, 8, 4, 256), 2, 4096),
    "gemma2_9b": _gemma((3584, 14336, 42, 16, 8, 256), 2, 4096),
    "gemma2_27b": _gemma((4608, 36864, 46, 32, 16, 128), 2, 4096, query_scalar=144.0),
}
_LOCAL: dict[str, Any] = {
    "rope_theta": 1e6,
    "local_rope_theta": 1e4,
    "attention_softcap": 0.0,
    "head_norms": True,
}
_FAR: dict[str, Any] = {**_LOCAL, "rope_factor": 8.0}
_GEMMA3 = {
    "gemma3_270m": _gemma((640, 2048, 18, 4, 1, 256), 6, 512, **_LOCAL),
    "gemma3_1b": _gemma((1152, 6912, 26, 4, 1, 256), 6, 512, **_LOCAL),
    "gemma3_4b": _gemma((2560, 10240, 34, 8, 4, 256), 6, 1024, **_FAR),
    "gemma3_12b": _gemma((3840, 15360, 48, 16, 8, 256), 6, 1024, **_FAR),
    "gemma3_27b": _gemma((5376, 21504, 62, 32, 16, 128), 6, 1024, query_scalar=168.0, **_FAR),
}
_LLAMA: dict[str, Any] = {"rope_theta": 5e5, "norm_epsilon": 1e-5}
_LLAMA31: dict[str, Any] = {
    **_LLAMA,
    "rope_factor": 8.0,
    "rope_low": 1.0,
    "rope_high": 4.0,
    "rope_length": 8192,
}
_LLAMA32: dict[str, Any] = {**_LLAMA31, "rope_factor": 32.0}
_LLAMAS = {
    "llama3_8b": _plain((4096, 14336, 32, 32, 8, 128), **_LLAMA),
    "llama3_70b": _plain((8192, 28672, 80, 64, 8, 128), **_LLAMA),
    "llama3_1_8b": _plain((4096, 14336, 32, 32, 8, 128), **_LLAMA31),
    "llama3_1_70b": _plain((8192, 28672, 80, 64, 8, 128), **_LLAMA31),
    "llama3_2_1b": _plain((2048, 8192, 16, 32, 8, 64), **_LLAMA32),
    "llama3_2_3b": _plain((3072, 8192, 28, 24, 8, 128), **_LLAMA32),
}
_QWEN2: dict[str, Any] = {"rope_theta": 1e6, "projection_bias": True}
_QWENS2 = {
    "qwen2_5_0_5b": _plain((896, 4864, 24, 14, 2, 64), **_QWEN2),
    "qwen2_5_1_5b": _plain((1536, 8960, 28, 12, 2, 128), **_QWEN2),
    "qwen2_5_3b": _plain((2048, 11008, 36, 16, 2, 128), **_QWEN2),
}
_LARGE_QWENS2 = {
    "qwen2_5_7b": _plain((3584, 18944, 28, 28, 4, 128), **_QWEN2),
    "qwen2_5_14b": _plain((5120, 13824, 48, 40, 8, 128), **_QWEN2, norm_epsilon=1e-5),
    "qwen2_5_32b": _plain((5120, 27648, 64, 40, 8, 128), **_QWEN2, norm_epsilon=1e-5),
    "qwen2_5_72b": _plain((8192, 29568, 80, 64, 8, 128), **_QWEN2, norm_epsilon=1e-5),
}
_QWEN3: dict[str, Any] = {"rope_theta": 1e6, "head_norms": True}
_QWENS3 = {
    "qwen3_0_6b": _plain((1024, 3072, 28, 16, 8, 128), **_QWEN3),
    "qwen3_1_7b": _plain((2048, 6144, 28, 16, 8, 128), **_QWEN3),
    "qwen3_4b": _plain((2560, 9728, 36, 32, 8, 128), **_QWEN3),
    "qwen3_8b": _plain((4096, 12288, 36, 32, 8, 128), **_QWEN3),
    "qwen3_14b": _plain((5120, 17408, 40, 40, 8, 128), **_QWEN3),
    "qwen3_32b": _plain((5120, 25600, 64, 64, 8, 128), **_QWEN3),
}
_MISTRALS = {
    "mistral_7b": _plain((4096, 14336, 32, 32, 8, 128), windows=(4096,) * 32, norm_epsilon=1e-5),
}
_MISTRALS3 = {
    "mistral_7b_v0_3": _plain((4096, 14336, 32, 32, 8, 128), rope_theta=1e6, norm_epsilon=1e-5),
}
_GEMMA: dict[str, Any] = {"scale_embeddings": True, "eos_id": 1}

DECODER_ONLY: dict[str, DecoderOnlyConfig] = {
    **_models("gemma2", 256000, _GEMMA2, (*_GEMMA2,), final_softcap=30.0, **_GEMMA),
    **{
        name: config
        for vocab_size, sizes in ((262144, ("270m", "1b")), (262208, ("4b", "12b", "27b")))
        for name, config in _models(
            "gemma3",
            vocab_size,
            {f"gemma3_{size}": _GEMMA3[f"gemma3_{size}"] for size in sizes},
            (*_GEMMA3,),
            **_GEMMA,
        ).items()
    },
    **_models("llama", 128256, _LLAMAS, ("llama3_2_1b", "llama3_2_3b"), eos_id=128001),
    **_models("qwen2", 151936, _QWENS2, (*_QWENS2,), eos_id=151643),
    **_models("qwen2", 152064, _LARGE_QWENS2, (), eos_id=151643),
    **_models("qwen3", 151936, _QWENS3, ("qwen3_0_6b", "qwen3_1_7b", "qwen3_4b"), eos_id=151643),
    **_models("mistral", 32000, _MISTRALS, ()),
    **_models("mistral", 32768, _MISTRALS3, ()),
}
"""The published sizes by name."""
