"""Random weights of a T5, or only their shapes and dtypes."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jaxtyping import Array, Key

from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.families import model_of
from prompt_tuning.models.parameters import ModelConfig, parameter_shapes
from prompt_tuning.models.quantization import quantize_params
from prompt_tuning.models.t5 import Params


def init_params(
    config: ModelConfig,
    key: Key[Array, ""],
    compute: Compute = Compute(),
    *,
    embedding_stddev: float = 1.0,
    relative_bias_stddev: float | None = None,
) -> Params:
    """Returns random weights at T5's own scales.

    Kernels are normal with variance 1/fan-in; queries with 1/(fan-in * head_dim), which replaces
    the scaling of attention logits.

    Args:
      config: the architecture.
      key: the random key.
      compute: sets the dtype of the weights, and whether they are quantized.
      embedding_stddev: of the embeddings, 1.0 in T5; small models train better with a smaller one.
      relative_bias_stddev: of the relative position biases. At T5's own scale, embed_dim**-0.5
        (None), no head prefers any distance, and with small steps the optimizer takes long to
        learn a local bias. TinyWorld's models use 3.
    """
    # Without fields that don't affect the weights, all models of a size share one compilation.
    size = dataclasses.replace(config, name="", decoder_start_id=None)
    if isinstance(size, T5Config):
        size = dataclasses.replace(size, activation="")
    params = _init(size, compute.param_dtype, key)
    table = params["token_embedder"]["embedding"]
    params["token_embedder"]["embedding"] = (table * embedding_stddev).astype(table.dtype)
    if relative_bias_stddev is not None:
        for stack in ("encoder", "decoder"):
            where = params[stack]
            biases = (where if "relpos_bias" in where else where["layers"])["relpos_bias"]
            drawn = biases["rel_embedding"]
            scaled = drawn * (relative_bias_stddev / jnp.std(drawn))
            biases["rel_embedding"] = scaled.astype(drawn.dtype)
    return quantize_params(params, compute) if compute.quantization else params


@functools.partial(jax.jit, static_argnames=("config", "param_dtype"))
def _init(config: ModelConfig, param_dtype: str, key: Key[Array, ""]) -> Params:
    tokens = jnp.ones((1, 1), jnp.int32)
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
    model: Any = model_of(config, Compute(param_dtype=param_dtype))
    variables = model.init(key, batch)
    return variables["params"]


def abstract_params(config: ModelConfig, compute: Compute = Compute()) -> Params:
    """Returns the shapes and dtypes of the weights, without computing or tracing any."""
    dtype = jnp.dtype(compute.param_dtype)
    flat = {
        name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in parameter_shapes(config).items()
    }
    params = unflatten_dict(flat, sep="/")
    if not compute.quantization:
        return params
    return jax.eval_shape(lambda params: quantize_params(params, compute), params)
