"""The values of `Compute`'s settings that are 'auto': a rule on the model and the hardware.

| setting         | on accelerators                                      | on a CPU                |
| --------------- | ---------------------------------------------------- | ----------------------- |
| `param_dtype`   | bfloat16                                             | as saved                |
| `compute_dtype` | bfloat16, as T5X's own configs                       | float32                 |
| `attention`     | flash, if `head_dim` is a power of two from 16 on    | plain                   |
| `unroll`        | all layers up to T5 Large; else a loop               | the same up to T5 Small |
| `remat`         | if what a step keeps doesn't fit in memory otherwise | off                     |

A CPU computes in float32 for any dtype of the weights; a cast to float32 would only take memory.
Quantized weights always have a loop: an unrolled program may dequantize many layers at once.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import PyTree

from prompt_tuning.models.compute import AUTO, Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.parameters import ModelConfig, parameter_shapes
from prompt_tuning.models.t5gemma_config import T5GemmaConfig

CPU = "cpu"
ACCELERATOR = "tpu"
"""Any of `jax.default_backend()`'s names except `CPU`: the rule doesn't distinguish them."""

_UNROLLED = {CPU: 16 * 512, ACCELERATOR: 48 * 1024}
"""The most layers, of both stacks together, times features that are unrolled.

On a v5e, by its compiler, a loop takes 1.5 times as long for Base, 1.2 for Large and 1.05 for XXL;
unrolled layers take minutes to compile from XL on.
"""

_USABLE = 0.8
"""The share of a device's memory for weights and kept activations: the rest is for the step's other
arrays, and for errors of the estimate."""


def auto_param_dtype(platform: str) -> str | None:
    """Returns the dtype of the weights on a platform of JAX; None is the saved one."""
    return None if platform == CPU else "bfloat16"


def resolved(
    compute: Compute,
    config: ModelConfig,
    platform: str,
    *,
    compute_dtype: str = AUTO,
    remat: bool | Literal["auto"] = AUTO,
    unroll: int | Literal["auto"] = AUTO,
) -> Compute:
    """Returns `compute` with these settings, 'auto' replaced by the platform's value.

    `remat` stays 'auto' on accelerators, for `needs_remat` to decide: it depends on the batch.
    """
    if compute_dtype == AUTO:
        compute_dtype = "float32" if platform == CPU else "bfloat16"
    if unroll == AUTO:
        size = sum(stack.num_layers * stack.embed_dim for stack in _stacks(config))
        most = _UNROLLED[CPU if platform == CPU else ACCELERATOR]
        unroll = 0 if size <= most and not compute.quantization else 1
    if remat == AUTO and platform == CPU:
        remat = False
    attention = compute.attention
    if attention == AUTO:
        # The kernels have a position bias, and no soft caps and windows.
        head_dim = config.head_dim if isinstance(config, T5Config) else 0
        possible = head_dim >= 16 and head_dim.bit_count() == 1
        attention = "flash" if platform != CPU and possible else "plain"
    return dataclasses.replace(
        compute, compute_dtype=compute_dtype, attention=attention, remat=remat, unroll=unroll
    )


def kept_bytes(
    config: ModelConfig,
    compute: Compute,
    *,
    rows: int | float,
    source: int,
    target: int,
    trained: PyTree,
    model_parallel: int = 1,
) -> int | float:
    """Estimates what the forward pass keeps for the backward pass on a device, in bytes.

    The inputs of norms, activations and attention are kept, and those of products only if their
    kernels are trained. `planning/` compiles the step instead, which is exact and slow.

    Args:
      config: the architecture.
      compute: the dtype of activations, and whether attention weights are kept.
      rows: examples of a microbatch on the device.
      source: positions of the encoder for each, with the prompt.
      target: positions of the decoder.
      trained: the trained parameters; the model's own are named as in `parameter_shapes`.
      model_parallel: devices that share the heads, the feed-forward blocks, and norms' inputs.
    """
    of_model = parameter_shapes(config).keys() & flatten_dict(trained, sep="/")
    kernels = any(name.endswith("kernel") for name in of_model)
    encoder, *_, decoder = _stacks(config) * 2  # a decoder-only model's stack is both
    rotary = not isinstance(config, T5Config)
    norms = 2 if rotary else 1  # of a block
    # A norm's input for each block, the query, key and value, and the feed-forward block's
    # hidden layers; in the decoder also another query, and the keys and values of the source,
    # which short targets don't need (`attention.Attention.folds`).
    embed, heads, mlp = _widths(encoder, model_parallel)
    kept = norms * 2 * embed / model_parallel + 3 * heads + mlp
    if kernels:
        kept += 2 * embed + heads + encoder.mlp_dim / model_parallel
    kept *= encoder.num_layers * source
    embed, heads, mlp = _widths(decoder, model_parallel)
    per_target = norms * 3 * embed + 4 * heads + mlp
    if kernels:
        per_target += 3 * embed + 2 * heads + decoder.mlp_dim / model_parallel
    kept += decoder.num_layers * target * per_target
    if target > decoder.head_dim // 2 or rotary:
        kept += decoder.num_layers * source * 2 * heads
    # Attention weights, [rows, heads, queries, keys]; trained biases take plain attention.
    flash = compute.attention == "flash" and isinstance(config, T5Config)
    flash = flash and not any("relpos_bias" in name for name in of_model)
    pairs = decoder.num_layers * decoder.num_heads * target * (target + source)
    pairs += encoder.num_layers * encoder.num_heads * source**2 if not flash else 0
    kept += pairs / model_parallel
    return rows * kept * jnp.dtype(compute.compute_dtype).itemsize


class _Sizes(NamedTuple):
    num_layers: int
    embed_dim: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    gated_mlp: bool


def _stacks(config: ModelConfig) -> tuple[_Sizes, ...]:
    """Returns the sizes of the encoder and the decoder, or of the only stack."""
    if isinstance(config, T5GemmaConfig | DecoderOnlyConfig):
        stacks = [config.decoder]
        if isinstance(config, T5GemmaConfig):
            stacks.insert(0, config.encoder)
        return tuple(_Sizes(*(getattr(stack, name) for name in _Sizes._fields)) for stack in stacks)
    assert isinstance(config, T5Config)
    return tuple(
        _Sizes(
            layers,
            config.embed_dim,
            config.num_heads,
            config.head_dim,
            config.mlp_dim,
            config.gated_mlp,
        )
        for layers in (config.num_encoder_layers, config.num_decoder_layers)
    )


def _widths(stack: _Sizes, model_parallel: int) -> tuple[float, float, float]:
    """Returns the features of a position, of all heads, and of the feed-forward block."""
    hidden = (2 if stack.gated_mlp else 1) * stack.mlp_dim
    heads = stack.num_heads * stack.head_dim
    return float(stack.embed_dim), heads / model_parallel, hidden / model_parallel


def needs_remat(kept: int | float, weights: int | float, memory: int | float | None) -> bool:
    """Returns whether layers must be recomputed in the backward pass, given bytes on a device.

    Args:
      kept: the result of `kept_bytes`.
      weights: of the weights, frozen and trained, with all that training adds to the latter.
      memory: the device's; None if unknown, which counts as enough.
    """
    return memory is not None and kept + weights > _USABLE * memory
