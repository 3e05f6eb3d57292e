"""T5Gemma's architectures (Zhang et al., 2025): Gemma 2's layers in T5's and in Gemma 2's sizes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompt_tuning.axes import EMBED, HEAD_DIM, HEADS, LAYER, MLP, VOCAB
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.parameters import ModelConfig, Parameter, parameter_axes

ACTIVATIONS = ("gelu_tanh", "gelu_erf", "relu", "silu")
_SIZES = ("embed_dim", "mlp_dim", "num_heads", "num_kv_heads", "head_dim")
_MOST_LAYERS = 1000  # a corrupt file could otherwise request a billion parameter names


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Architecture of the encoder or the decoder.

    Attributes:
      num_kv_heads: heads of keys and values; each serves `num_heads / num_kv_heads` queries.
      query_scalar: attention logits are divided by its square root.
      windows: for each layer, how far it sees; 0 is everywhere. A decoder layer sees that many
        positions with its own, an encoder layer that many to either side.
      rope_theta: base of the wavelengths of rotary positions.
      attention_softcap: bound of attention logits; 0 for none.
    """

    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_scalar: float
    windows: tuple[int, ...]
    rope_theta: float = 10000.0
    attention_softcap: float = 50.0
    norm_epsilon: float = 1e-6
    activation_name: str = "gelu_tanh"
    gated_mlp: bool = True  # of `layers.MLP`

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise UserError(
                f"A T5Gemma has {self.num_heads} heads of {self.head_dim} for "
                f"{self.num_kv_heads} of keys and values; expected a multiple, and an even width."
            )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Stack":
        """Returns the stack with these fields of a file; raises UserError if one is invalid."""
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise UserError(f"Not a T5Gemma config: unknown fields {shown(unknown)}.")
        found = dict(fields)
        for name in _SIZES:
            _number(name, found.get(name), int, 1)
        for name in ("query_scalar", "rope_theta", "attention_softcap", "norm_epsilon"):
            if name in found or name == "query_scalar":
                _number(name, found.get(name), float, 0)
                found[name] = float(found[name])
        windows = found.get("windows")
        if (
            not isinstance(windows, list | tuple)
            or not 1 <= len(windows) <= _MOST_LAYERS
            or not all(type(window) is int and 0 <= window < 2**31 for window in windows)
        ):
            raise UserError(f"windows of a T5Gemma are {shown(windows)}; expected integers.")
        if found.get("activation_name", ACTIVATIONS[0]) not in ACTIVATIONS:
            raise UserError(
                f"activation_name of a T5Gemma is {shown(found['activation_name'])}; expected one "
                f"of {ACTIVATIONS}."
            )
        if found.pop("gated_mlp", True) is not True:
            raise UserError("A T5Gemma's feed-forward blocks are gated.")
        return cls(**{**found, "windows": tuple(windows)})

    @property
    def num_layers(self) -> int:
        """The number of layers."""
        return len(self.windows)


@dataclass(frozen=True, kw_only=True)
class T5GemmaConfig(ModelConfig):
    """Architecture of a T5Gemma.

    Attributes:
      encoder: the encoder.
      decoder: the decoder, of the same or another size.
      tie_embeddings: whether the decoder's embedding table is also the output layer.
      final_softcap: bound of the output's logits; 0 for none.
    """

    encoder: Stack
    decoder: Stack
    tie_embeddings: bool = True
    final_softcap: float = 30.0
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
        return "t5gemma"

    @property
    def embedding_scale(self) -> float:
        """The factor of the embedding table's rows in the input."""
        return self.encoder.embed_dim**0.5

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
        rows = [
            self._row("token_embedder/embedding", self.encoder, "model.encoder.embed_tokens"),
            self._row("decoder_embedder/embedding", self.decoder, "model.decoder.embed_tokens"),
        ]
        for name, stack in {"encoder": self.encoder, "decoder": self.decoder}.items():
            for module, theirs in _MODULES[name].items():
                hf = f"model.{name}.layers.{{layer}}.{theirs}"
                rows.append(self._row(f"{name}/layers/{module}", stack, hf))
            rows.append(self._row(f"{name}/{name}_norm/scale", stack, f"model.{name}.norm"))
        if not self.tie_embeddings:
            rows.append(self._row("decoder/logits_dense/kernel", self.decoder, "lm_head.out_proj"))
        return tuple(rows)

    def _row(self, name: str, stack: Stack, huggingface: str) -> Parameter:
        axes = parameter_axes(name)
        inputs = {"kernel": 2 if name.endswith("out/kernel") else 1}.get(name.rpartition("/")[2], 0)
        grouped = name.endswith(("key/kernel", "value/kernel"))
        across = grouped and "encoder_decoder_attention" in name
        sizes = {
            LAYER: stack.num_layers,
            VOCAB: self.vocab_size,
            EMBED: self.encoder.embed_dim if across else stack.embed_dim,
            HEADS: stack.num_kv_heads if grouped else stack.num_heads,
            HEAD_DIM: stack.head_dim,
            MLP: stack.mlp_dim,
            None: stack.embed_dim,
        }
        return Parameter(
            name=name,
            shape=tuple(sizes[axis] for axis in axes),
            axes=axes,
            inputs=inputs,
            huggingface=f"{huggingface}.weight",
            transposed=inputs > 0,
        )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "T5GemmaConfig":
        """Returns the config written by `to_json`; raises UserError if it isn't one."""
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        stacks = {name: fields.get(name) for name in ("encoder", "decoder")}
        if unknown or not all(isinstance(stack, dict) for stack in stacks.values()):
            raise UserError(
                f"Not a T5Gemma config: unknown fields {shown(unknown)}, or no encoder or decoder."
            )
        if type(fields.get("name")) is not str:
            raise UserError(f"The name of a T5Gemma is {shown(fields.get('name'))}.")
        _number("vocab_size", fields.get("vocab_size"), int, 1)
        for name, default in {"pad_id": 0, "eos_id": 1, "decoder_start_id": 2}.items():
            _number(name, fields.get(name, default), int, 0, fields["vocab_size"])
        _number("final_softcap", fields.get("final_softcap", 0.0), float, 0)
        if type(fields.get("tie_embeddings", True)) is not bool:
            tied = shown(fields["tie_embeddings"])
            raise UserError(f"tie_embeddings of a T5Gemma is {tied}; expected true or false.")
        found: dict[str, Any] = {name: Stack.of(stack or {}) for name, stack in stacks.items()}
        width = found["encoder"].embed_dim
        if fields.get("embed_dim", width) != width:
            raise UserError(
                f"embed_dim of a T5Gemma is {shown(fields['embed_dim'])}; expected the encoder's, "
                f"{width}."
            )
        return cls(**{"embed_dim": width, **fields, **found})


def _number(name: str, value: Any, kind: type, least: int, most: int = 2**31) -> None:
    """Raises UserError if a field isn't a number from `least` to below `most`."""
    if type(value) not in (int, kind) or not least <= value < most:
        expected = "an integer" if kind is int else "a number"
        raise UserError(
            f"{name} of a T5Gemma is {shown(value)}; expected {expected} from {least} to below "
            f"{most:,}."
        )


def _modules(blocks: dict[str, tuple[str, str, str]]) -> dict[str, str]:
    """Returns the parameters of a layer: our name -> Hugging Face's module."""
    found = {}
    for module, (norm, theirs, their_norm) in blocks.items():
        for when in ("pre", "post"):
            found[f"{when}_{norm}_layer_norm/scale"] = f"{when}_{their_norm}_layernorm"
        names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
        if module == "mlp":
            names = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
        found |= {f"{module}/{ours}/kernel": f"{theirs}.{name}" for ours, name in names.items()}
    return found


_FEED_FORWARD = ("mlp", "mlp", "feedforward")
_MODULES = {
    "encoder": _modules(
        {"attention": ("attention", "self_attn", "self_attn"), "mlp": _FEED_FORWARD}
    ),
    "decoder": _modules(
        {
            "self_attention": ("self_attention", "self_attn", "self_attn"),
            "encoder_decoder_attention": ("cross_attention", "cross_attn", "cross_attn"),
            "mlp": _FEED_FORWARD,
        }
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
