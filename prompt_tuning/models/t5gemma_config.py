"""T5Gemma's architectures: Gemma 2's layers in T5's and in Gemma 2's sizes (Zhang et al., 2025).

And T5Gemma 2's (Zhang et al., 2025b), without its images: Gemma 3's layers in Gemma 3's sizes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.decoder_only_config import DECODER_ONLY
from prompt_tuning.models.parameters import ModelConfig, Parameter
from prompt_tuning.models.stack import Stack, block_modules, check_names, check_number


@dataclass(frozen=True, kw_only=True)
class T5GemmaConfig(ModelConfig):
    """Architecture of a T5Gemma.

    Attributes:
      encoder: the encoder.
      decoder: the decoder, of the same or another size.
      tie_embeddings: whether the decoder's embedding table is also the output layer.
      final_softcap: bound of the output's logits; 0 for none.
      merged: whether the decoder's layers attend to their own positions and the encoder's in one
        block, and all embeddings are one table (T5Gemma 2).
    """

    encoder: Stack
    decoder: Stack
    tie_embeddings: bool = True
    final_softcap: float = 30.0
    merged: bool = False
    decoder_start_id: int | None = 2

    def __post_init__(self) -> None:
        if self.embed_dim != self.encoder.embed_dim:
            raise UserError(
                f"embed_dim of {shown(self.name)} is {shown(self.embed_dim)}; expected the "
                f"encoder's, {self.encoder.embed_dim}."
            )

    @property
    def family(self) -> str:
        """The name of the family."""
        return "t5gemma2" if self.merged else "t5gemma"

    @property
    def embedding_scale(self) -> float:
        """The factor of the embedding table's rows in the input."""
        return self.encoder.embed_dim**0.5

    @property
    def peft_scale(self) -> float:
        """The factor of PEFT's prompts in the input; T5Gemma 2 scales only what it looks up."""
        return 1.0 if self.merged else self.embedding_scale

    @property
    def rope_theta(self) -> float:
        """The base of the rotary positions of the decoder's self-attention."""
        return self.decoder.rope_theta

    @property
    def num_encoder_layers(self) -> int:
        """The number of the encoder's layers."""
        return self.encoder.num_layers

    @property
    def num_decoder_layers(self) -> int:
        """The number of the decoder's layers."""
        return self.decoder.num_layers

    def parameters(self) -> tuple[Parameter, ...]:
        """Returns one row per parameter of the model."""
        rows = []
        for name, stack in {"encoder": self.encoder, "decoder": self.decoder}.items():
            row = functools.partial(stack.parameter, vocab_size=self.vocab_size)
            table = "token_embedder" if name == "encoder" else "decoder_embedder"
            theirs_of = f"model.{name}"
            if self.merged and name == "encoder":
                theirs_of += ".text_model"
            if name == "encoder" or not self.merged:
                rows.append(row(f"{table}/embedding", f"{theirs_of}.embed_tokens"))
            for block in _BLOCKS[name]:
                if block is _CROSS and self.merged:
                    continue
                width = self.encoder.embed_dim if block is _CROSS else stack.embed_dim
                for module, theirs in block_modules(stack, *block).items():
                    hf = f"{theirs_of}.layers.{{layer}}.{theirs}"
                    rows.append(row(f"{name}/layers/{module}", hf, source_dim=width))
            rows.append(row(f"{name}/{name}_norm/scale", f"{theirs_of}.norm"))
        if not self.tie_embeddings:
            rows.append(
                self.decoder.parameter(
                    "decoder/logits_dense/kernel", "lm_head.out_proj", self.vocab_size
                )
            )
        return tuple(rows)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "T5GemmaConfig":
        """Returns the config written by `to_json`; raises UserError if it isn't one."""
        stacks = {name: fields.get(name) for name in ("encoder", "decoder")}
        check_names(fields, {field.name: field for field in dataclasses.fields(cls)})
        if not all(isinstance(stack, dict) for stack in stacks.values()):
            raise UserError("Not a T5Gemma config: it has no encoder or no decoder.")
        if type(fields.get("name")) is not str:
            raise UserError(f"The name of a T5Gemma is {shown(fields.get('name'))}.")
        check_number("vocab_size", fields.get("vocab_size"), int, 1)
        for name, default in {"pad_id": 0, "eos_id": 1, "decoder_start_id": 2}.items():
            check_number(name, fields.get(name, default), int, 0, fields["vocab_size"])
        check_number("final_softcap", fields.get("final_softcap", 0.0), float, 0)
        for name in ("tie_embeddings", "merged"):
            if type(fields.get(name, True)) is not bool:
                raise UserError(f"{name} is {shown(fields[name])}; expected true or false.")
        found: dict[str, Any] = {name: Stack.of(stack or {}) for name, stack in stacks.items()}
        width = found["encoder"].embed_dim
        if fields.get("embed_dim", width) != width:
            raise UserError(
                f"embed_dim is {shown(fields['embed_dim'])}; expected the encoder's, {width}."
            )
        return cls(**{"embed_dim": width, **fields, **found})


def _norms(theirs: str) -> tuple[str, str]:
    return f"pre_{theirs}_layernorm", f"post_{theirs}_layernorm"


_MLP = ("mlp", "mlp", "mlp", _norms("feedforward"))
_CROSS = ("encoder_decoder_attention", "cross_attention", "cross_attn", _norms("cross_attn"))
_BLOCKS = {
    "encoder": (("attention", "attention", "self_attn", _norms("self_attn")), _MLP),
    "decoder": (
        ("self_attention", "self_attention", "self_attn", _norms("self_attn")),
        _CROSS,
        _MLP,
    ),
}


def _stack(
    embed_dim: int, mlp_dim: int, layers: int, heads: int, kv_heads: int, head_dim: int
) -> Stack:
    return Stack(
        embed_dim=embed_dim,
        mlp_dim=mlp_dim,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        query_scalar=float(head_dim),
        windows=tuple(0 if layer % 2 else 4096 for layer in range(layers)),
    )


# size: embed_dim, mlp_dim, layers, heads, heads of keys and values, head_dim
_STACKS = {
    "s": _stack(512, 1024, 8, 8, 8, 64),
    "b": _stack(768, 2048, 12, 12, 12, 64),
    "l": _stack(1024, 2816, 24, 16, 16, 64),
    "xl": _stack(2048, 5120, 24, 32, 32, 64),
    "2b": _stack(2304, 9216, 26, 8, 4, 256),
    "9b": _stack(3584, 14336, 42, 16, 8, 256),
}
T5GEMMA = {
    f"t5gemma_{encoder}_{decoder}": T5GemmaConfig(
        name=f"t5gemma_{encoder}_{decoder}",
        vocab_size=256000,
        embed_dim=_STACKS[encoder].embed_dim,
        encoder=_STACKS[encoder],
        decoder=_STACKS[decoder],
    )
    for encoder, decoder in (*((size, size) for size in _STACKS), ("9b", "2b"))
}
"""The published sizes by name."""

for _size in ("270m", "1b", "4b"):
    _gemma = DECODER_ONLY[f"gemma3_{_size}"].decoder
    T5GEMMA[f"t5gemma2_{_size}_{_size}"] = T5GemmaConfig(
        name=f"t5gemma2_{_size}_{_size}",
        vocab_size=262144,
        embed_dim=_gemma.embed_dim,
        encoder=_gemma,
        decoder=_gemma,
        final_softcap=0.0,
        merged=True,
    )
