"""Matrix products, projections, RMSNorm, the embedding table and the feed-forward block.

Attention is in attention.py, the stacks in encoder_decoder.py. Einsum letters are those of axes.py.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.parameters import CODES, SCALES
from prompt_tuning.models.quantization import QuantizedKernel
from prompt_tuning.models.slots import LowRank, Slots, with_low_rank


def contract(spec: str, x: Array, y: Array | QuantizedKernel, compute: Compute) -> Array:
    """Returns `einsum(spec, x, y)` in float32, its inputs rounded to the matmul dtype.

    The cotangent is rounded too, so that backward products are as fast as forward ones. Each letter
    of `spec` must occur in at least two of its three terms. `y` may be a quantized kernel, which is
    frozen and gets no cotangent.
    """
    dtype = jnp.dtype(compute.product_dtype)
    if isinstance(y, QuantizedKernel):
        return _contract_quantized(spec, dtype, x.dtype, x, y)
    return _contract(spec, dtype, x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract(spec: str, dtype: jnp.dtype, x: Array, y: Array) -> Array:
    return _product(spec, dtype, x, y, jnp.dtype("float32"))


def _contract_forward(
    spec: str, dtype: jnp.dtype, x: Array, y: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _product(spec, dtype, x, y, jnp.dtype("float32")), (x, y)


def _contract_backward(
    spec: str, dtype: jnp.dtype, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, y = residuals
    inputs, output = spec.split("->")
    x_axes, y_axes = inputs.split(",")
    return (
        _product(f"{output},{y_axes}->{x_axes}", dtype, cotangent, y, x.dtype),
        _product(f"{x_axes},{output}->{y_axes}", dtype, x, cotangent, y.dtype),
    )


def _product(spec: str, dtype: jnp.dtype, x: Array, y: Array, result: jnp.dtype) -> Array:
    return jnp.einsum(spec, x.astype(dtype), y.astype(dtype), preferred_element_type=result)


_contract.defvjp(_contract_forward, _contract_backward)


# The backward pass stores the codes, not the kernel, and dequantizes them again.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _contract_quantized(
    spec: str, dtype: jnp.dtype, x_dtype: jnp.dtype, x: Array, y: QuantizedKernel
) -> Array:
    return _contract_quantized_forward(spec, dtype, x_dtype, x, y)[0]


def _contract_quantized_forward(
    spec: str, dtype: jnp.dtype, x_dtype: jnp.dtype, x: Array, y: QuantizedKernel
) -> tuple[Array, QuantizedKernel]:
    del x_dtype
    x, held = _after(x, y)
    return _product(spec, dtype, x, held.dequantize(), jnp.dtype("float32")), y


def _contract_quantized_backward(
    spec: str, dtype: jnp.dtype, x_dtype: jnp.dtype, y: QuantizedKernel, cotangent: Array
) -> tuple[Array, None]:
    inputs, output = spec.split("->")
    x_axes, y_axes = inputs.split(",")
    cotangent, y = _after(cotangent, y)
    kernel = y.dequantize()
    return _product(f"{output},{y_axes}->{x_axes}", dtype, cotangent, kernel, x_dtype), None


def _after(x: Array, y: QuantizedKernel) -> tuple[Array, QuantizedKernel]:
    """Makes the compiler dequantize `y` only once `x` is computed.

    Otherwise, with unrolled layers, it would merge the dequantization of the forward and the
    backward pass, and keep every layer's kernel in between. It would also hoist all kernels of a
    decoding loop out of the loop. (XLA on CPUs may do so despite this barrier; a loop over layers,
    `unroll=1`, is safe everywhere.)
    """
    return jax.lax.optimization_barrier((x, y))


_contract_quantized.defvjp(_contract_quantized_forward, _contract_quantized_backward)


class Projection(nn.Module):
    """A matrix product with one `kernel`, which may be quantized.

    Attributes:
      spec: the einsum of the input and the kernel.
      shape: the kernel's shape.
      stddev: of the normal initializer.
      biased: whether there is a `bias` too, for a kernel that sums over one axis.
    """

    compute: Compute
    spec: str
    shape: tuple[int, ...]
    stddev: float
    biased: bool = False

    @nn.compact
    def __call__(self, x: Array, low_rank: LowRank | None = None, spec: str | None = None) -> Array:
        """Returns the projected `x` in float32, with the low-rank addition if there is one.

        Another `spec` than the module's may sum over other axes of the kernel.
        """
        kernel = self._kernel()
        projected = contract(spec or self.spec, x, kernel, self.compute)
        if low_rank is not None:
            kernel = kernel.dequantize() if isinstance(kernel, QuantizedKernel) else kernel
            projected = with_low_rank(projected, x, kernel, low_rank)
        if self.biased:
            dtype = jnp.dtype(self.compute.param_dtype)
            projected += self.param("bias", nn.initializers.zeros, self.shape[1:], dtype)
        return projected

    def _kernel(self) -> Array | QuantizedKernel:
        if self.has_variable("params", CODES):
            axes = self.spec.split(",")[1].partition("->")[0]
            return QuantizedKernel(
                codes=self.get_variable("params", CODES),
                scales=self.get_variable("params", SCALES),
                axis=axes.index("d") - len(axes),  # blocks are along `embed`
            )
        normal = nn.initializers.normal(self.stddev)
        return self.param("kernel", normal, self.shape, jnp.dtype(self.compute.param_dtype))


class RMSNorm(nn.Module):
    """Root-mean-square norm, without mean subtraction or bias (Zhang & Sennrich, 2019)."""

    config: T5Config
    compute: Compute
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(self, x: Float[Array, "*batch embed"]) -> Float[Array, "*batch embed"]:
        """Returns `x` divided by its root mean square over `embed`, times the scale."""
        scale = self.param(
            "scale", nn.initializers.ones, (x.shape[-1],), jnp.dtype(self.compute.param_dtype)
        )
        return rms_normed(x, scale, self.config.norm_epsilon, self.layout)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def rms_normed(x: Array, scale: Array, epsilon: float, layout: ActivationLayout) -> Array:
    """Returns `RMSNorm`'s output; the backward pass stores `x` and one number per position.

    Model-parallel devices store a part of the features each, and compute the gradient of this part:
    what was one sum of gradients over these devices becomes a sum of each part and its broadcast.
    """
    return _rms_normed_forward(x, scale, epsilon, layout)[0]


def _rms_normed_forward(
    x: Array, scale: Array, epsilon: float, layout: ActivationLayout
) -> tuple[Array, tuple[Array, Array, Array]]:
    x = layout.gather(x)  # Else XLA may compute on parts here too, and move the batch for that.
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    normed = (wide * inverse * scale.astype(jnp.float32)).astype(x.dtype)
    return normed, (layout.scatter(x), scale, inverse)


def _rms_normed_backward(
    epsilon: float,
    layout: ActivationLayout,
    residuals: tuple[Array, Array, Array],
    cotangent: Array,
) -> tuple[Array, Array]:
    del epsilon
    x, scale, inverse = residuals
    wide, cotangent = x.astype(jnp.float32), layout.scatter(cotangent).astype(jnp.float32)
    scaled = cotangent * scale.astype(jnp.float32)
    mean = jnp.mean(scaled * wide, axis=-1, keepdims=True)
    # Without `wide * inverse`, which XLA would keep from the forward pass.
    of_x = inverse * scaled - wide * (inverse**3 * mean)
    of_scale = jnp.sum(cotangent * inverse * wide, axis=range(x.ndim - 1))
    return layout.gather(of_x.astype(x.dtype)), of_scale.astype(scale.dtype)


rms_normed.defvjp(_rms_normed_forward, _rms_normed_backward)


class TokenEmbedder(nn.Module):
    """The embedding table, which is also the output layer if the config ties them."""

    config: T5Config
    compute: Compute

    def setup(self) -> None:
        self.embedding = self.param(
            "embedding",
            nn.initializers.normal(1.0),
            (self.config.vocab_size, self.config.embed_dim),
            jnp.dtype(self.compute.param_dtype),
        )

    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        """Returns the embeddings of `tokens`."""
        return jnp.take(self.embedding, tokens, axis=0).astype(self.compute.compute_dtype)

    def attend(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length vocab"]:
        """Returns logits against the table, for tied embeddings."""
        return contract(
            "btd,vd->btv", x * self.config.embed_dim**-0.5, self.embedding, self.compute
        )


@runtime_checkable
class FeedForwardSizes(Protocol):
    """What `MLP` needs of a config."""

    @property
    def embed_dim(self) -> int: ...
    @property
    def mlp_dim(self) -> int: ...
    @property
    def gated_mlp(self) -> bool: ...
    @property
    def activation_name(self) -> str: ...


class MLP(nn.Module):
    """The feed-forward block: gated GELU (Shazeer, 2020) in v1.1 and mT5, ReLU in v1.0.

    `ACTIVATIONS` in config.py lists all activations.
    """

    config: FeedForwardSizes
    compute: Compute
    deterministic: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], slots: Slots = Slots()
    ) -> Float[Array, "batch length embed"]:
        """Returns the block's output, before the residual is added."""
        config = self.config
        dtype = jnp.dtype(self.compute.compute_dtype)

        def widen(name: str) -> Array:
            return Projection(
                compute=self.compute,
                spec="btd,df->btf",
                shape=(config.embed_dim, config.mlp_dim),
                stddev=config.embed_dim**-0.5,
                name=name,
            )(x, slots.low_rank.get(name)).astype(dtype)

        hidden: Any
        if config.gated_mlp:
            hidden = _gated(config.activation_name, widen("wi_0"), widen("wi_1"))
        else:
            hidden = _ACTIVATIONS[config.activation_name](widen("wi"))
        hidden = dropout(self, slots.scaled("hidden", hidden).astype(dtype))
        narrow = Projection(
            compute=self.compute,
            spec="btf,fd->btd",
            shape=(config.mlp_dim, config.embed_dim),
            stddev=config.mlp_dim**-0.5,
            name="wo",
        )
        return narrow(hidden, slots.low_rank.get("wo")).astype(dtype)


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "gelu_erf": functools.partial(nn.gelu, approximate=False),
    "silu": nn.silu,
}


# A hidden layer of XL or XXL. A TPU is faster without a barrier for fewer features.
_WIDE = 4096


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gated(activation: str, gate: Array, linear: Array) -> Array:
    """Returns `activation(gate) * linear` in float32; the backward pass recomputes it."""
    gate, linear = gate.astype(jnp.float32), linear.astype(jnp.float32)
    return _ACTIVATIONS[activation](gate) * linear


def _gated_forward(activation: str, gate: Array, linear: Array) -> tuple[Array, Any]:
    return _gated(activation, gate, linear), (gate, linear)


def _gated_backward(activation: str, residuals: Any, cotangent: Array) -> Any:
    # Otherwise XLA would keep the activation from the forward pass.
    gate, linear = jax.lax.optimization_barrier(residuals)
    wide = gate.astype(jnp.float32)
    activated, derivative = jax.vjp(_ACTIVATIONS[activation], wide)
    of_gate = derivative(cotangent * linear.astype(jnp.float32))[0].astype(gate.dtype)
    of_linear = (cotangent * activated).astype(linear.dtype)
    if gate.shape[-1] >= _WIDE:
        # Otherwise TPUs compute both anew for each block of the products that follow.
        of_gate, of_linear = jax.lax.optimization_barrier((of_gate, of_linear))
    return of_gate, of_linear


_gated.defvjp(_gated_forward, _gated_backward)


def dropout(module: nn.Module, x: Array) -> Array:
    """Returns `x` with dropout at the `Compute`'s rate, unless `module.deterministic`.

    A function rather than a submodule: it has no parameters, and a rate of 0 costs nothing.
    """
    rate = module.compute.dropout_rate
    if module.deterministic or rate == 0.0:
        return x
    keep = jax.random.bernoulli(module.make_rng("dropout"), 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))
