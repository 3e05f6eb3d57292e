"""Numerics and memory options of a model, as opposed to its architecture (`config.py`).

Weight files contain none of them: the same weights work with any options.
"""

from dataclasses import dataclass
from typing import Literal

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.config import type_problem
from prompt_tuning.models.hardware import fastest_matmul_dtype

ATTENTIONS = ("auto", "plain", "flash")
AUTO: Literal["auto"] = "auto"
DTYPES = ("float32", "bfloat16")
QUANTIZATIONS = ("int8", "nf4")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Numerics and memory options; they change speed, memory and rounding, but not the model.

    Attributes:
      param_dtype: dtype of the weights.
      compute_dtype: dtype of activations; softmax, norms and logits are always float32.
      matmul_dtype: dtype to which inputs of matrix products are rounded; `compute_dtype` if empty,
        the hardware's fastest if "auto". Products are always accumulated in float32.
      attention: "flash" computes the encoder's self-attention on TPUs and NVIDIA GPUs by kernels
        that store no attention weights (flash_attention.py); "plain" everywhere by XLA. "auto" is
        plain; `auto.resolved` decides first.
      remat: recompute each layer in the backward pass instead of keeping its activations. "auto"
        is False; training decides first (`auto.needs_remat`).
      unroll: layers per step of the scan over layers. 0 unrolls all of them, which runs faster
        and compiles more slowly.
      dropout_rate: dropout in training.
      quantization: "int8" or "nf4" to store kernels in 8 or 4 bits, empty for none; `param_dtype`
        is then the dtype of the other weights. See quantization.py.
      quantization_block: values that share a scale; even, and a divisor of `embed_dim`.
      quantize_output_layer: whether an untied output layer is quantized too.
    """

    param_dtype: str = "float32"
    compute_dtype: str = "float32"
    matmul_dtype: str = ""
    attention: str = AUTO
    remat: bool | Literal["auto"] = False
    unroll: int = 1
    dropout_rate: float = 0.0
    quantization: str = ""
    quantization_block: int = 64
    quantize_output_layer: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if (name, value) == ("remat", AUTO):
                continue
            if expected := type_problem(Compute, name, value):
                expected += " or 'auto'" if name in ("remat", "unroll") else ""
                raise UserError(f"{name} is {value!r}; expected {expected}.")
        allowed = {
            "param_dtype": DTYPES,
            "compute_dtype": DTYPES,
            "matmul_dtype": ("", "auto", *DTYPES),
            "attention": ATTENTIONS,
            "quantization": ("", *QUANTIZATIONS),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if value not in values:
                hint = did_you_mean(value.lower(), values)
                raise UserError(f"{name} is {value!r}; expected one of {values}.{hint}")
        limits = {
            "unroll": (self.unroll >= 0, "0 or more"),
            "dropout_rate": (0 <= self.dropout_rate < 1, "from 0 to below 1"),
            "quantization_block": (
                self.quantization_block >= 2 and self.quantization_block % 2 == 0,
                "an even number",
            ),
        }
        for name, (valid, expected) in limits.items():
            if not valid:
                raise UserError(f"{name} is {getattr(self, name)}; expected {expected}.")

    @property
    def product_dtype(self) -> str:
        """The dtype to which inputs of matrix products are rounded."""
        if self.matmul_dtype == "auto":
            return fastest_matmul_dtype()
        return self.matmul_dtype or self.compute_dtype
