"""T5 sizes as data: the five of the paper (v1.1), the original five (v1.0) and mT5's five.

The paper's sizes are Table 4 of Raffel et al. (2020) with the v1.1 changes (gated GELU, untied
output layer); mT5 is v1.1 with a vocabulary of 250,112 rows (Xue et al., 2021).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.json_text import shown

DTYPES = ("float32", "bfloat16")
ACTIVATIONS = ("relu", "gelu_tanh", "gelu_erf", "silu")
QUANTIZATIONS = ("int8", "nf4")

_LARGEST = 2**31 - 1
# The bounds of the config's integers. Ten times the layers of the
# deepest T5 there is; with more, a few bytes of a file would ask for a list of names without end.
_RANGES = {
    "vocab_size": (1, _LARGEST),
    "embed_dim": (1, _LARGEST),
    "num_heads": (1, _LARGEST),
    "head_dim": (1, _LARGEST),
    "mlp_dim": (1, _LARGEST),
    "num_encoder_layers": (1, 1000),
    "num_decoder_layers": (1, 1000),
    "relative_attention_num_buckets": (4, _LARGEST),  # two for each sign of a distance
    "relative_attention_max_distance": (1, _LARGEST),
    "pad_id": (0, _LARGEST),
    "eos_id": (0, _LARGEST),
    "decoder_start_id": (0, _LARGEST),
    "unroll": (0, 1000),
    "quantization_block": (2, _LARGEST),
}
_SWITCHES = ("gated_mlp", "tie_embeddings", "remat", "quantize_output_layer")


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """The shape of a T5 and how it is to be computed.

    Attributes:
      name: what the model is called in files and messages.
      gated_mlp: the feed-forward block has a gate (v1.1, mT5) or none (v1.0).
      activation: of the feed-forward block, or of its gate, one of `ACTIVATIONS`; if empty, GELU in
        its tanh form where there is a gate and ReLU where there is none, as in the published T5s.
      tie_embeddings: the output layer is the embedding table and the decoder's output is
        scaled by `embed_dim ** -0.5` before it (v1.0).
      pad_id: what fills up inputs and targets, which nothing attends to.
      eos_id: what ends a sequence.
      decoder_start_id: what the decoder is given before the first token of a target; the padding
        id if None.
      param_dtype: what the weights are stored in.
      compute_dtype: what activations are held in; softmax, norms and logits are float32 always.
      matmul_dtype: what the inputs of matrix products are rounded to, `compute_dtype` if empty.
        Products are summed in float32 whatever it is. `"bfloat16"` beside float32 activations is
        the fastest choice on a CPU with bfloat16 instructions.
      remat: recompute each layer in the backward pass instead of keeping its activations.
      unroll: layers a scan step holds; 0 unrolls all of them, which is faster to run and slower to
        compile.
      quantization: "int8" or "nf4" if kernels are held in 8 or 4 bits, else empty; `param_dtype` is
        then that of the other weights. See quantization.py.
      quantization_block: numbers of a kernel that share a scale; even, and it divides `embed_dim`.
      quantize_output_layer: whether the output layer is quantized too, where it isn't tied.
    """

    name: str
    vocab_size: int = 32128
    embed_dim: int
    num_heads: int
    head_dim: int = 64
    mlp_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    gated_mlp: bool = True
    activation: str = ""
    tie_embeddings: bool = False
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    pad_id: int = 0
    eos_id: int = 1
    decoder_start_id: int | None = None
    param_dtype: str = "float32"
    compute_dtype: str = "float32"
    matmul_dtype: str = ""
    remat: bool = False
    unroll: int = 1
    quantization: str = ""
    quantization_block: int = 64
    quantize_output_layer: bool = False

    def __post_init__(self) -> None:
        _check_values(dataclasses.asdict(self))
        for field in ("param_dtype", "compute_dtype", "matmul_dtype"):
            dtype = getattr(self, field)
            if dtype not in DTYPES and (field, dtype) != ("matmul_dtype", ""):
                raise UserError(
                    f"{field} of model {self.name!r} is {dtype!r}; expected one of {DTYPES}."
                )
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
        if self.quantization:
            self._check_quantization()

    def _check_quantization(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            raise UserError(
                f"quantization of model {self.name!r} is {self.quantization!r}; expected one of "
                f"{QUANTIZATIONS}, or '' for none."
                f"{did_you_mean(self.quantization.lower(), QUANTIZATIONS)}"
            )
        block, embed = self.quantization_block, self.embed_dim
        if block % 2 or embed % block:
            blocks = [size for size in range(2, min(block, embed) + 1, 2) if embed % size == 0]
            fix = f"set it to {blocks[-1]}" if blocks else "this model can't be quantized"
            raise UserError(
                f"quantization_block of model {self.name!r} is {block}; it must be even and divide "
                f"embed_dim, {embed}: {fix}."
            )

    @property
    def product_dtype(self) -> str:
        """What the inputs of matrix products are rounded to."""
        return self.matmul_dtype or self.compute_dtype

    @property
    def activation_name(self) -> str:
        """The feed-forward block's activation, one of `ACTIVATIONS`."""
        return self.activation or ("gelu_tanh" if self.gated_mlp else "relu")

    @property
    def start_id(self) -> int:
        """What the decoder is given before the first token of a target."""
        return self.pad_id if self.decoder_start_id is None else self.decoder_start_id

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dict that `json` can write."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Any) -> "T5Config":
        """Returns the config that `to_json` wrote; raises UserError if fields differ or are odd."""
        if not isinstance(fields, dict):
            raise UserError(f"Not a T5 config: found {shown(fields)}, expected a json object.")
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - set(known))
        absent = sorted(
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING and name not in fields
        )
        if unknown or absent:
            raise UserError(
                f"Not a T5 config: unknown fields {shown(unknown)}, absent fields {absent}."
            )
        _check_values(fields)
        return cls(**fields)


def _check_values(fields: Mapping[str, Any]) -> None:
    for field, value in fields.items():
        if wanted := problem_of(field, value):
            name = shown(fields["name"])
            raise UserError(f"{field} of model {name} is {shown(value)}; expected {wanted}.")


def problem_of(field: str, value: Any) -> str | None:
    """Returns what was expected of a field of `T5Config`, or None if the value is that."""
    number = type(value) is int  # which True isn't
    if field == "decoder_start_id" and value is None:
        return None
    if field in _RANGES:
        least, most = _RANGES[field]
        ok = number and least <= value <= most
        return None if ok else f"an integer from {least} to {most:,}"
    if field in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    if field == "norm_epsilon":
        return None if isinstance(value, float) and 0 < value < 1 else "a number between 0 and 1"
    if field == "dropout_rate":
        ok = (number or isinstance(value, float)) and 0 <= value < 1
        return None if ok else "a number from 0 to below 1"
    return None if isinstance(value, str) else "a string"


def _sizes(prefix: str, rows: dict[str, tuple[int, ...]], **common: Any) -> dict[str, T5Config]:
    return {
        f"{prefix}_{size}": T5Config(
            name=f"{prefix}_{size}",
            embed_dim=embed_dim,
            mlp_dim=mlp_dim,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            num_heads=heads,
            head_dim=head_dim,
            **common,
        )
        for size, (embed_dim, mlp_dim, layers, heads, head_dim) in rows.items()
    }


# size: embed_dim, mlp_dim, layers (encoder and decoder each), heads, head_dim
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

MODELS: dict[str, T5Config] = {
    **_sizes("t5_1_1", _V1_1),
    **_sizes("t5", _V1_0, gated_mlp=False, tie_embeddings=True),
    **_sizes("mt5", _V1_1, vocab_size=250112),
}


def get_config(name: str, **changes: Any) -> T5Config:
    """Returns the config of a named size, with any `changes` to its fields.

    Raises:
      UserError: no model is called `name`.
    """
    if name not in MODELS:
        raise UserError(f"No model is called {name!r}.{did_you_mean(name, MODELS)}")
    return dataclasses.replace(MODELS[name], **changes)
