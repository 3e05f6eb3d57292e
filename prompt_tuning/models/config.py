"""T5 architectures: the paper's five sizes (v1.1), the original five (v1.0) and T5's relatives.

The paper's sizes are Table 4 of Raffel et al. (2020) with the v1.1 changes (gated GELU, untied
output layer). The relatives are v1.1 with other sizes and vocabularies: mT5 (Xue et al., 2021);
ByT5, whose encoder is three times as deep as its decoder (Xue et al., 2022); UL2, with gated SiLU
(Tay et al., 2022); MADLAD-400, with other special ids (Kudugunta et al., 2023); and UMT5, each of
whose layers has a relative position bias (Chung et al., 2023).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from prompt_tuning.axes import (
    BUCKETS,
    EMBED,
    HEAD_DIM,
    HEADS,
    LAYER,
    MLP,
    VOCAB,
)
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.json_text import shown
from prompt_tuning.models.decoder_only_config import DECODER_ONLY, DecoderOnlyConfig
from prompt_tuning.models.parameters import Axes, ModelConfig, Parameter
from prompt_tuning.models.t5gemma_config import T5GEMMA, T5GemmaConfig

ACTIVATIONS = ("relu", "gelu_tanh", "gelu_erf", "silu")

_MOST_LAYERS = 1000  # a corrupt file could otherwise request a billion parameter names
# Fields of files written before `Compute` was split off; ignored.
_OF_COMPUTE = (
    *("param_dtype", "compute_dtype", "matmul_dtype", "remat", "unroll", "dropout_rate"),
    *("quantization", "quantization_block", "quantize_output_layer"),
)


@dataclass(frozen=True, kw_only=True)
class T5Config(ModelConfig):
    """Architecture of a T5.

    Attributes:
      gated_mlp: whether the feed-forward block is gated (v1.1, mT5; not v1.0).
      activation: of the feed-forward block, or of its gate, one of `ACTIVATIONS`; if empty,
        tanh-approximated GELU if gated, else ReLU, as in the published T5s.
      tie_embeddings: whether the embedding table is also the output layer, after scaling the
        decoder's output by `embed_dim ** -0.5` (v1.0).
      bias_per_layer: whether each layer has its own relative position bias (UMT5).
    """

    vocab_size: int = 32128
    num_heads: int
    head_dim: int = 64
    mlp_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    gated_mlp: bool = True
    activation: str = ""
    tie_embeddings: bool = False
    bias_per_layer: bool = False
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check(vars(self))
        if self.activation not in ("", *ACTIVATIONS):
            raise UserError(
                f"activation of model {self.name!r} is {self.activation!r}; expected one of "
                f"{ACTIVATIONS}.{did_you_mean(self.activation, ACTIVATIONS)}"
            )
        for field in ("pad_id", "eos_id", "decoder_start_id"):
            if (getattr(self, field) or 0) >= self.vocab_size:
                raise UserError(
                    f"{field} of model {self.name!r} is {getattr(self, field)}; expected an id "
                    f"below vocab_size, {self.vocab_size}."
                )

    @property
    def activation_name(self) -> str:
        """The feed-forward block's activation, one of `ACTIVATIONS`."""
        return self.activation or ("gelu_tanh" if self.gated_mlp else "relu")

    def parameters(self) -> tuple[Parameter, ...]:
        """Returns one row per parameter of the model."""
        absent = {"wi"} if self.gated_mlp else {*_GATED}
        sizes = {
            VOCAB: self.vocab_size,
            EMBED: self.embed_dim,
            HEADS: self.num_heads,
            HEAD_DIM: self.head_dim,
            MLP: self.mlp_dim,
            BUCKETS: self.relative_attention_num_buckets,
            None: self.embed_dim,
        }
        layers = {"encoder": self.num_encoder_layers, "decoder": self.num_decoder_layers}
        return tuple(
            Parameter(
                name=row.name,
                shape=tuple({**sizes, LAYER: layers.get(stack)}[axis] for axis in row.axes),
                axes=row.axes,
                inputs=row.inputs,
                huggingface=f"{row.huggingface}.weight",
                transposed=row.inputs > 0 or row.name.endswith("rel_embedding"),
            )
            for row in _ROWS
            for stack in [row.name.partition("/")[0]]
            if row.name.split("/")[-2] not in absent
            and not (row.name == _OUTPUT and self.tie_embeddings)
            and (BUCKETS not in row.axes or (LAYER in row.axes) == self.bias_per_layer)
        )

    @classmethod
    def from_json(cls, fields: Any) -> "T5Config":
        """Returns the config written by `to_json`; raises UserError if it isn't one."""
        if not isinstance(fields, dict):
            raise UserError(f"Not a T5 config: found {shown(fields)}, expected a JSON object.")
        fields = {name: value for name, value in fields.items() if name not in _OF_COMPUTE}
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        absent = sorted(
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        )
        if unknown or absent:
            raise UserError(
                f"Not a T5 config: unknown fields {shown(unknown)}, missing fields {absent}."
            )
        _check(fields)
        return cls(**fields)


def _check(fields: Mapping[str, Any]) -> None:
    for field, value in fields.items():
        if expected := problem_of(field, value):
            name = shown(fields["name"])
            raise UserError(f"{field} of model {name} is {shown(value)}; expected {expected}.")


def type_problem(kind: type, field: str, value: Any) -> str | None:
    """Returns the type that a dataclass's field expects, or None if the value has it."""
    annotation: Any = {f.name: f.type for f in dataclasses.fields(kind)}[field]
    types = get_args(annotation) or (annotation,)
    if type(value) in types or (float in types and type(value) is int):
        return None
    return {int: "an integer", float: "a number", bool: "true or false", str: "a string"}[types[0]]


def problem_of(field: str, value: Any) -> str | None:
    """Returns what a field of `T5Config` expects, or None if the value is valid."""
    if problem := type_problem(T5Config, field, value):
        return problem
    if field == "norm_epsilon":
        return None if 0 < value < 1 else "a number between 0 and 1"
    if type(value) is not int:
        return None
    # At least two buckets for each sign of a distance.
    least = {"relative_attention_num_buckets": 4}.get(field, 0 if field.endswith("_id") else 1)
    most = _MOST_LAYERS if field.endswith("_layers") else 2**31 - 1
    return None if least <= value <= most else f"an integer from {least} to {most:,}"


class _Row(NamedTuple):
    name: str
    axes: Axes
    huggingface: str
    inputs: int = 0


# Norms are a few kilobytes: cheaper to replicate than to gather.
_NORM: Axes = (None,)


def _attention(block: str, theirs: str) -> list[_Row]:
    split, merge = (EMBED, HEADS, HEAD_DIM), (HEADS, HEAD_DIM, EMBED)
    return [
        _Row(f"{block}/query/kernel", split, f"{theirs}.q", 1),
        _Row(f"{block}/key/kernel", split, f"{theirs}.k", 1),
        _Row(f"{block}/value/kernel", split, f"{theirs}.v", 1),
        _Row(f"{block}/out/kernel", merge, f"{theirs}.o", 2),
    ]


def _mlp(theirs: str) -> list[_Row]:
    return [
        *(_Row(f"mlp/{wi}/kernel", (EMBED, MLP), f"{theirs}.{wi}", 1) for wi in (*_GATED, "wi")),
        _Row("mlp/wo/kernel", (MLP, EMBED), f"{theirs}.wo", 1),
    ]


_GATED = ("wi_0", "wi_1")  # of a gated feed-forward block, which has no "wi"
_OUTPUT = "decoder/logits_dense/kernel"  # absent if embeddings are tied
_LAYERS = {
    "encoder": [
        _Row("pre_attention_layer_norm/scale", _NORM, "0.layer_norm"),
        *_attention("attention", "0.SelfAttention"),
        _Row("pre_mlp_layer_norm/scale", _NORM, "1.layer_norm"),
        *_mlp("1.DenseReluDense"),
    ],
    "decoder": [
        _Row("pre_self_attention_layer_norm/scale", _NORM, "0.layer_norm"),
        *_attention("self_attention", "0.SelfAttention"),
        _Row("pre_cross_attention_layer_norm/scale", _NORM, "1.layer_norm"),
        *_attention("encoder_decoder_attention", "1.EncDecAttention"),
        _Row("pre_mlp_layer_norm/scale", _NORM, "2.layer_norm"),
        *_mlp("2.DenseReluDense"),
    ],
}
_RELATIVE = "0.SelfAttention.relative_attention_bias"
_BIAS = _Row("relpos_bias/rel_embedding", (HEADS, BUCKETS), _RELATIVE)  # of a layer, or of all
_ROWS = [
    _Row("token_embedder/embedding", (VOCAB, EMBED), "shared"),
    *(
        _Row(f"{stack}/{_BIAS.name}", _BIAS.axes, f"{stack}.block.0.layer.{_RELATIVE}")
        for stack in _LAYERS
    ),
    *(
        _Row(
            f"{stack}/layers/{name}", (LAYER, *axes), f"{stack}.block.{{layer}}.layer.{hf}", inputs
        )
        for stack, rows in _LAYERS.items()
        for name, axes, hf, inputs in [*rows, _BIAS]
    ),
    *(_Row(f"{stack}/{stack}_norm/scale", _NORM, f"{stack}.final_layer_norm") for stack in _LAYERS),
    _Row(_OUTPUT, (EMBED, VOCAB), "lm_head", 1),
]


def _sizes(
    prefix: str, rows: Mapping[str, tuple[int, int, int | tuple[int, int], int, int]], **common: Any
) -> dict[str, T5Config]:
    return {
        f"{prefix}_{size}": T5Config(
            name=f"{prefix}_{size}",
            embed_dim=embed_dim,
            mlp_dim=mlp_dim,
            num_encoder_layers=layers[0] if isinstance(layers, tuple) else layers,
            num_decoder_layers=layers[1] if isinstance(layers, tuple) else layers,
            num_heads=heads,
            head_dim=head_dim,
            **common,
        )
        for size, (embed_dim, mlp_dim, layers, heads, head_dim) in rows.items()
    }


# size: embed_dim, mlp_dim, layers (of each stack, or of encoder and decoder), heads, head_dim
_V1_1 = {
    "small": (512, 1024, 8, 6, 64),
    "base": (768, 2048, 12, 12, 64),
    "large": (1024, 2816, 24, 16, 64),
    "xl": (2048, 5120, 24, 32, 64),
    "xxl": (4096, 10240, 24, 64, 64),
}
_V1_0 = {
    "small": (512, 2048, 6, 8, 64),
    "base": (768, 3072, 12, 12, 64),
    "large": (1024, 4096, 24, 16, 64),
    "3b": (1024, 16384, 24, 32, 128),
    "11b": (1024, 65536, 24, 128, 128),
}
_BYT5 = {
    "small": (1472, 3584, (12, 4), 6, 64),
    "base": (1536, 3968, (18, 6), 12, 64),
    "large": (1536, 3840, (36, 12), 16, 64),
    "xl": (2560, 6720, (36, 12), 32, 64),
    "xxl": (4672, 12352, (36, 12), 64, 64),
}
_MADLAD = {
    "3b": (1024, 8192, 32, 16, 128),
    "7b": (2048, 8192, 48, 16, 128),
    "10b": (2048, 16384, 32, 32, 128),
}

T5_MODELS: dict[str, T5Config] = {
    **_sizes("t5_1_1", _V1_1),
    **_sizes("t5", _V1_0, gated_mlp=False, tie_embeddings=True),
    **_sizes("mt5", _V1_1, vocab_size=250112),
    **_sizes(
        "umt5",
        {size: _V1_1[size] for size in ("small", "base", "xl", "xxl")},
        vocab_size=256384,
        bias_per_layer=True,
    ),
    **_sizes("byt5", _BYT5, vocab_size=384),
    **_sizes("ul2", {"20b": (4096, 16384, 32, 16, 256)}, activation="silu"),
    **_sizes("madlad400", _MADLAD, vocab_size=256000, pad_id=1, eos_id=2, decoder_start_id=0),
}

MODELS: dict[str, ModelConfig] = {**T5_MODELS, **T5GEMMA, **DECODER_ONLY}


def config_from_json(fields: Any) -> ModelConfig:
    """Returns the config of any family that `to_json` made; raises UserError if it isn't one."""
    if isinstance(fields, dict) and "encoder" in fields:
        return T5GemmaConfig.from_json(fields)
    if isinstance(fields, dict) and "decoder" in fields:
        return DecoderOnlyConfig.from_json(fields)
    return T5Config.from_json(fields)


def get_config(name: str, **changes: Any) -> Any:
    """Returns the config of a named size, with any `changes` to its fields.

    Raises:
      UserError: no model is called `name`.
    """
    if name not in MODELS:
        raise UserError(f"Unknown model {name!r}.{did_you_mean(name, MODELS)}")
    return dataclasses.replace(MODELS[name], **changes)
