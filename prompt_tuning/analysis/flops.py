"""The minimum FLOPs of prompt tuning, rank classification and decoding.

Derived from the sizes of a model, as a reference for XLA's counts: a step that computes no gradient
of a frozen weight, and an evaluation that runs the encoder once, come close
(tests/analysis/test_flops.py).

A product of [m, k] and [k, n] is 2mkn FLOPs. Only matrix products are counted; elementwise
operations (norms, softmax, GELU) add about 1 %. Lengths are in tokens.
"""

import dataclasses

from prompt_tuning.models.config import T5Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFlops:
    """FLOPs of one training step.

    Attributes:
      forward: of the loss.
      backward: of the prompt's gradient, through activations only.
      recomputed: with `remat`, of each layer's second forward pass, except for its last product,
        which the backward pass doesn't need.
    """

    forward: int
    backward: int
    recomputed: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.forward + self.backward + self.recomputed


@dataclasses.dataclass(frozen=True)
class _Products:
    """FLOPs of the model's matrix products, for `batch` examples."""

    config: T5Config
    batch: int

    def weight(self, rows: int, fan_in: int, fan_out: int) -> int:
        """Returns the FLOPs of multiplying `rows` positions of each example by a weight."""
        return 2 * self.batch * rows * fan_in * fan_out

    def projection(self, rows: int) -> int:
        """Returns the FLOPs of the queries, keys, values or output of attention, all equal."""
        return self.weight(rows, self.config.embed_dim, self.inner)

    def attention(self, pairs: int) -> int:
        """Returns the FLOPs of one of attention's two products, for `pairs` per example."""
        return 2 * self.batch * pairs * self.inner

    def mlp(self, rows: int) -> int:
        products = 3 if self.config.gated_mlp else 2
        return products * self.weight(rows, self.config.embed_dim, self.config.mlp_dim)

    def logits(self, rows: int) -> int:
        return self.weight(rows, self.config.embed_dim, self.config.vocab_size)

    @property
    def inner(self) -> int:
        return self.config.num_heads * self.config.head_dim

    def encoder_layer(self, source: int) -> int:
        return 4 * self.projection(source) + 2 * self.attention(source**2) + self.mlp(source)

    def decoder_layer(self, target: int, keys: int, source: int) -> int:
        """Returns the FLOPs of a layer, without the keys and values of cross-attention."""
        own = 4 * self.projection(target) + 2 * self.attention(target * keys)
        cross = 2 * self.projection(target) + 2 * self.attention(target * source)
        return own + cross + self.mlp(target)


def encoder_flops(config: T5Config, *, batch: int, source: int) -> int:
    """Returns the FLOPs of the encoder's forward pass; `source` includes the prompt."""
    return config.num_encoder_layers * _Products(config, batch).encoder_layer(source)


def cross_key_value_flops(config: T5Config, *, batch: int, source: int) -> int:
    """Returns the FLOPs of all decoder layers' cross-attention keys and values."""
    return config.num_decoder_layers * 2 * _Products(config, batch).projection(source)


def decoder_flops(
    config: T5Config, *, rows: int, target: int, source: int, keys: int | None = None
) -> int:
    """Returns the FLOPs of the decoder with logits, given the cross-attention keys and values.

    Args:
      config: the model.
      rows: number of targets: of examples, or of their labels or beams.
      target: positions computed per target.
      source: encoder positions, including the prompt.
      keys: positions that self-attention reads from a cache; if None, `target`.
    """
    products = _Products(config, rows)
    layer = products.decoder_layer(target, target if keys is None else keys, source)
    return config.num_decoder_layers * layer + products.logits(target)


def step_flops(
    config: T5Config, *, batch: int, prompt: int, source: int, target: int, remat: bool = False
) -> StepFlops:
    """Returns the minimum FLOPs of a step of prompt tuning (Lester et al., 2021).

    In the backward pass, each product of an activation with a frozen weight costs the same again,
    for the activation's gradient; the weight has none. Each product of two activations (attention
    logits, and attention weights times values) costs twice as much, because both have a gradient.

    The prompt enters below the first encoder layer, so the backward pass goes through all layers.
    It can skip only operations that don't depend on the prompt, or don't affect its gradient:

    - in the first encoder layer, the input's positions are plain embeddings, so that only the
      prompt's rows of queries, keys and values need a gradient (the row sums of other rows that
      the softmax's gradient needs are dot products of outputs, not matrix products);
    - in the first decoder layer, self-attention and the query of cross-attention don't depend on
      the prompt.

    Cross-attention of few queries needs no keys and values (`models.attention.Attention.folded`).
    Gradient accumulation doesn't change the FLOPs.

    Args:
      config: the model.
      batch: examples per step.
      prompt: the prompt's length.
      source: the input's length, without the prompt.
      target: the target's length.
      remat: whether the backward pass recomputes the layers' forward pass.
    """
    products = _Products(config, batch)
    attention, projection, mlp = products.attention, products.projection, products.mlp
    p, s, t = prompt, prompt + source, target
    # Of cross-attention: the products with the kernels of keys and values, and one of the two
    # products of activations. Without keys and values, heads are as wide as the embedding.
    if t <= config.head_dim // 2:
        kernels, cross = (
            2 * projection(t),
            products.weight(t * config.num_heads, s, config.embed_dim),
        )
        first_kernels = projection(t)  # the gradient of its queries isn't needed
    else:
        kernels = first_kernels = 2 * projection(s)
        cross = attention(t * s)
    decoder_layer = products.decoder_layer(t, t, s) - 2 * attention(t * s) + kernels + 2 * cross
    layers = (
        encoder_flops(config, batch=batch, source=s) + config.num_decoder_layers * decoder_layer
    )
    last_products = config.num_encoder_layers * products.weight(
        s, config.mlp_dim, config.embed_dim
    ) + config.num_decoder_layers * products.weight(t, config.mlp_dim, config.embed_dim)

    # Gradients of queries, keys, values: p rows each. Of attention weights: p rows and p columns.
    first_attention = 3 * attention(p * s) + attention(2 * p * s - p * p)
    first_encoder_layer = 3 * projection(p) + first_attention + projection(s) + mlp(s)
    upper_encoder_layer = products.encoder_layer(s) + 2 * attention(s * s)
    # Gradients of the attention weights, the keys and the values, but not of the queries.
    first_decoder_layer = projection(t) + first_kernels + 3 * cross + mlp(t)
    upper_decoder_layer = decoder_layer + 2 * attention(t * t) + 2 * cross
    backward = (
        first_encoder_layer
        + (config.num_encoder_layers - 1) * upper_encoder_layer
        + first_decoder_layer
        + (config.num_decoder_layers - 1) * upper_decoder_layer
        + products.logits(t)
    )
    return StepFlops(
        forward=layers + products.logits(t),
        backward=backward,
        recomputed=layers - last_products if remat else 0,
    )
