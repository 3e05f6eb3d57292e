"""The architecture of a stack of rotary layers: of a T5Gemma or a decoder-only model.

`rotary_layers.py` has the layers, `t5gemma_config.py` and `decoder_only_config.py` the models.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from prompt_tuning.axes import EMBED, HEAD_DIM, HEADS, LAYER, MLP, VOCAB
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.parameters import Parameter, parameter_axes

ACTIVATIONS = ("gelu_tanh", "gelu_erf", "relu", "silu")
_MOST_LAYERS = 1000  # a corrupt file could otherwise request a billion parameter names


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Architecture of a stack. The defaults are Gemma 2's.

    Attributes:
      num_kv_heads: heads of keys and values; each serves `num_heads / num_kv_heads` queries.
      query_scalar: attention logits are divided by its square root.
      windows: for each layer, how far it sees; 0 is everywhere. A decoder layer sees that many
        positions with its own, an encoder layer that many to either side.
      rope_theta: base of the wavelengths of rotary positions.
      local_rope_theta: that of layers with a window (Gemma 3); 0 for `rope_theta`.
      rope_factor: by which wavelengths are stretched, but for those of `local_rope_theta`.
      rope_low: with `rope_high` and `rope_length`, only long wavelengths are stretched (Llama 3):
        those of more than `rope_length / rope_low` positions, and less and less down to
        `rope_length / rope_high`. All 0 to stretch all.
      rope_high: see `rope_low`.
      rope_length: see `rope_low`.
      attention_softcap: bound of attention logits; 0 for none.
      unit_offset: whether norms' scales are differences from 1.
      post_norms: whether there is a norm after each block too.
      head_norms: whether each head's query and key are normed (Gemma 3, Qwen 3).
      projection_bias: whether queries, keys and values have a bias (Qwen 2.5).
    """

    embed_dim: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    query_scalar: float
    windows: tuple[int, ...]
    rope_theta: float = 10000.0
    local_rope_theta: float = 0.0
    rope_factor: float = 1.0
    rope_low: float = 0.0
    rope_high: float = 0.0
    rope_length: int = 0
    attention_softcap: float = 50.0
    norm_epsilon: float = 1e-6
    activation_name: str = "gelu_tanh"
    gated_mlp: bool = True  # of `layers.MLP`
    unit_offset: bool = True
    post_norms: bool = True
    head_norms: bool = False
    projection_bias: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise UserError(
                f"A stack has {self.num_heads} heads of {self.head_dim} for {self.num_kv_heads} of "
                "keys and values; expected a multiple, and an even width."
            )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Stack":
        """Returns the stack with these fields of a file; raises UserError if one is invalid."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        check_names(fields, known)
        found = dict(fields)
        for name, field in known.items():
            if name not in found and field.default is not dataclasses.MISSING:
                continue
            if field.type is int:
                check_number(name, found.get(name), int, int(name != "rope_length"))
            elif field.type is float:
                check_number(name, found.get(name), float, 0)
                found[name] = float(found[name])
            elif field.type is bool and type(found[name]) is not bool:
                raise UserError(f"{name} is {shown(found[name])}; expected true or false.")
        windows = found.get("windows")
        if (
            not isinstance(windows, list | tuple)
            or not 1 <= len(windows) <= _MOST_LAYERS
            or not all(type(window) is int and 0 <= window < 2**31 for window in windows)
        ):
            raise UserError(f"windows are {shown(windows)}; expected integers.")
        if found.get("activation_name", ACTIVATIONS[0]) not in ACTIVATIONS:
            raise UserError(
                f"activation_name is {shown(found['activation_name'])}; expected one of "
                f"{ACTIVATIONS}."
            )
        if not found.get("gated_mlp", True):
            raise UserError("gated_mlp is false, but feed-forward blocks here are gated.")
        return cls(**{**found, "windows": tuple(windows)})

    @property
    def num_layers(self) -> int:
        """The number of layers."""
        return len(self.windows)

    def frequencies(self) -> Float32[np.ndarray, "layer half"]:
        """Returns each layer's rotary frequencies, in radians per position (Su et al., 2021)."""
        exponents = -np.arange(self.head_dim // 2) / (self.head_dim // 2)
        wide = self._stretched(self.rope_theta**exponents)
        local = self.local_rope_theta**exponents if self.local_rope_theta else wide
        return np.array([local if window else wide for window in self.windows], np.float32)

    def _stretched(self, frequencies: np.ndarray) -> np.ndarray:
        """Returns the frequencies divided by `rope_factor`, as far as they are."""
        if not self.rope_length:
            return frequencies / self.rope_factor
        turns = self.rope_length * frequencies / (2 * math.pi)
        kept = np.clip((turns - self.rope_low) / (self.rope_high - self.rope_low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.rope_factor)

    def parameter(
        self, name: str, huggingface: str, vocab_size: int, source_dim: int = 0
    ) -> Parameter:
        """Returns a row of the table of parameters.

        Args:
          name: as in `Parameter`.
          huggingface: as in `Parameter`, without the kind of parameter.
          vocab_size: rows of the embedding table.
          source_dim: width of what keys and values are computed from; 0 for this stack's.
        """
        axes = parameter_axes(name)
        module, kind = name.split("/")[-2:]
        inputs = (2 if module == "out" else 1) if kind == "kernel" else 0
        grouped = module in ("key", "value")
        sizes = {
            LAYER: self.num_layers,
            VOCAB: vocab_size,
            EMBED: (source_dim if grouped else 0) or self.embed_dim,
            HEADS: self.num_kv_heads if grouped else self.num_heads,
            HEAD_DIM: self.head_dim,
            MLP: self.mlp_dim,
            None: self.head_dim if module in ("query_norm", "key_norm") else self.embed_dim,
        }
        return Parameter(
            name=name,
            shape=tuple(sizes[axis] for axis in axes),
            axes=axes,
            inputs=inputs,
            huggingface=f"{huggingface}.{'bias' if kind == 'bias' else 'weight'}",
            transposed=inputs > 0,
        )


def block_modules(
    stack: Stack, module: str, norm: str, theirs: str, their_norms: tuple[str, str]
) -> dict[str, str]:
    """Returns the parameters of a block of a layer: our name -> Hugging Face's module.

    Args:
      stack: the layer's.
      module: our name of the block.
      norm: what our norms' names have instead of it.
      theirs: Hugging Face's name of the block.
      their_norms: of the norms before and after it; the second is unused if there is none.
    """
    found = {f"pre_{norm}_layer_norm/scale": their_norms[0]}
    if stack.post_norms:
        found[f"post_{norm}_layer_norm/scale"] = their_norms[1]
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
    if module == "mlp":
        names = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
    found |= {f"{module}/{ours}/kernel": f"{theirs}.{name}" for ours, name in names.items()}
    if module != "mlp" and stack.projection_bias:
        found |= {f"{module}/{each}/bias": f"{theirs}.{names[each]}" for each in _BIASED}
    if module != "mlp" and stack.head_norms:
        found |= {f"{module}/{each}_norm/scale": f"{theirs}.{each[0]}_norm" for each in _NORMED}
    return found


_BIASED = ("query", "key", "value")
_NORMED = ("query", "key")


def check_names(fields: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises UserError if a field isn't among the known ones."""
    if unknown := sorted(set(fields) - set(known)):
        raise UserError(f"Not a model's config: unknown fields {shown(unknown)}.")


def check_number(name: str, value: Any, kind: type, least: int, most: int = 2**31) -> None:
    """Raises UserError if a field isn't a number from `least` to below `most`."""
    if type(value) not in (int, kind) or not least <= value < most:
        expected = "an integer" if kind is int else "a number"
        raise UserError(
            f"{name} is {shown(value)}; expected {expected} from {least} to below {most:,}."
        )
