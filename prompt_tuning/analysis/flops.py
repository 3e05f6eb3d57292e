"""The minimum FLOPs of prompt tuning, rank classification and decoding.

Derived from the sizes of a model, as a reference for XLA's counts: a step that computes no gradient
of a frozen weight, and an evaluation that runs the encoder once, come close
(tests/analysis/test_flops.py). A window saves nothing: keys outside it are multiplied, then masked.

A product of [m, k] and [k, n] is 2mkn FLOPs. Only matrix products are counted; elementwise
operations (norms, softmax, GELU) add about 1 %. Lengths are in tokens.
"""

import dataclasses
import math

from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.parameters import ModelConfig
from prompt_tuning.models.targets import projections


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepFlops:
    """FLOPs of one training step.

    Attributes:
      forward: of the loss.
      backward: of the prompt's gradient, through activations only.
      recomputed: with `remat`, of each layer's second forward pass, except for its last product,
        which the backward pass doesn't need, unless it is normed.
    """

    forward: int
    backward: int
    recomputed: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.forward + self.backward + self.recomputed


class _Products:
    """FLOPs of the model's matrix products, for `batch` examples.

    Kernels are those of the family's table of parameters.
    """

    def __init__(self, config: ModelConfig, batch: int):
        self.batch = batch
        self.targets = {target.name: target for target in projections(config)}
        merged = f"{_CROSS}/query" not in self.targets  # T5Gemma 2
        self.cross = _SELF if merged else _CROSS  # of an encoder-decoder
        self.logits_size = self.targets[f"{_SELF}/out"].outputs[0] * config.vocab_size

    def weight(self, rows: int, *names: str) -> int:
        """Returns the FLOPs of `rows` positions of each example times a layer's kernels."""
        kernels = (self.targets[name] for name in names if name in self.targets)
        sizes = (kernel.parameters // kernel.layers for kernel in kernels)
        return 2 * self.batch * rows * sum(sizes)

    def of_block(self, rows: int, block: str, *modules: str) -> int:
        """Returns the same for modules of a block."""
        return self.weight(rows, *(f"{block}/{module}" for module in modules))

    def attention(self, block: str, pairs: int) -> int:
        """Returns the FLOPs of one of attention's two products, for `pairs` per example."""
        return 2 * self.batch * pairs * math.prod(self.targets[f"{block}/query"].outputs)

    def self_attention(self, block: str, rows: int, pairs: int) -> int:
        return self.of_block(rows, block, *_PROJECTIONS) + 2 * self.attention(block, pairs)

    def mlp(self, stack: str, rows: int) -> int:
        return self.of_block(rows, f"{stack}/mlp", "wi", "wi_0", "wi_1", "wo")

    def logits(self, rows: int) -> int:
        return 2 * self.batch * rows * self.logits_size

    def layers(self, block: str) -> int:
        return self.targets[f"{block}/query"].layers

    def encoder_layer(self, source: int) -> int:
        return self.self_attention(_ENCODER, source, source**2) + self.mlp("encoder", source)

    def decoder_layer(self, target: int, keys: int, source: int) -> int:
        """Returns the FLOPs of a layer, without the keys and values of cross-attention."""
        own = self.self_attention(_SELF, target, target * keys)
        cross = self.of_block(target, _CROSS, "query", "out")
        cross += 2 * self.attention(self.cross, target * source)
        return own + cross + self.mlp("decoder", target)


_ENCODER, _SELF = "encoder/attention", "decoder/self_attention"
_CROSS = "decoder/encoder_decoder_attention"
_PROJECTIONS = ("query", "key", "value", "out")


def encoder_flops(config: ModelConfig, *, batch: int, source: int) -> int:
    """Returns the FLOPs of the encoder's forward pass; `source` includes the prompt."""
    products = _Products(config, batch)
    return products.layers(_ENCODER) * products.encoder_layer(source)


def cross_key_value_flops(config: ModelConfig, *, batch: int, source: int) -> int:
    """Returns the FLOPs of all decoder layers' cross-attention keys and values."""
    products = _Products(config, batch)
    return products.layers(_SELF) * products.of_block(source, products.cross, "key", "value")


def decoder_flops(
    config: ModelConfig, *, rows: int, target: int, source: int, keys: int | None = None
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
    return products.layers(_SELF) * layer + products.logits(target)


def step_flops(
    config: ModelConfig, *, batch: int, prompt: int, source: int, target: int, remat: bool = False
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

    T5's cross-attention of few queries needs no keys and values
    (`models.attention.Attention.folded`).
    Gradient accumulation doesn't change the FLOPs.

    Args:
      config: the model.
      batch: examples per step.
      prompt: the prompt's length.
      source: the input's length, without the prompt.
      target: the target's length.
      remat: whether the backward pass recomputes the layers' forward pass.
    """
    if isinstance(config, DecoderOnlyConfig):
        return _decoder_only_step_flops(config, batch, prompt, prompt + source, target, remat)
    products = _Products(config, batch)
    of_block, attention, mlp = products.of_block, products.attention, products.mlp
    encoder_layers, decoder_layers = products.layers(_ENCODER), products.layers(_SELF)
    p, s, t = prompt, prompt + source, target
    # Of cross-attention: the products with the kernels of keys and values, and one of the two
    # products of activations. Without keys and values, heads are as wide as the embedding.
    block = products.cross
    heads, head_dim = products.targets[f"{block}/query"].outputs
    if isinstance(config, T5Config) and t <= head_dim // 2:
        kernels, first_kernels = (  # the gradient of the first layer's queries isn't needed
            of_block(t, block, *modules) for modules in (("key", "value"), ("value",))
        )
        cross = 2 * batch * t * s * heads * config.embed_dim
    else:
        kernels = first_kernels = of_block(s, block, "key", "value")
        cross = attention(block, t * s)
    decoder_layer = products.decoder_layer(t, t, s) + kernels
    decoder_layer += 2 * cross - 2 * attention(block, t * s)
    layers = encoder_layers * products.encoder_layer(s) + decoder_layers * decoder_layer
    last_products = encoder_layers * of_block(s, "encoder/mlp", "wo")
    last_products += decoder_layers * of_block(t, "decoder/mlp", "wo")
    if any("post_mlp_layer_norm" in each.name for each in config.parameters()):
        last_products = 0  # what is normed is needed

    # Gradients of queries, keys, values: p rows each. Of attention weights: p rows and p columns.
    first_encoder_layer = (
        of_block(p, _ENCODER, "query", "key", "value")
        + 3 * attention(_ENCODER, p * s)
        + attention(_ENCODER, 2 * p * s - p * p)
        + of_block(s, _ENCODER, "out")
        + mlp("encoder", s)
    )
    upper_encoder_layer = products.encoder_layer(s) + 2 * attention(_ENCODER, s * s)
    # Gradients of the attention weights, the keys and the values, but not of the queries.
    first_decoder_layer = of_block(t, block, "out") + first_kernels + 3 * cross
    first_decoder_layer += mlp("decoder", t)
    upper_decoder_layer = decoder_layer + 2 * attention(_SELF, t * t) + 2 * cross
    backward = (
        first_encoder_layer
        + (encoder_layers - 1) * upper_encoder_layer
        + first_decoder_layer
        + (decoder_layers - 1) * upper_decoder_layer
        + products.logits(t)
    )
    return StepFlops(
        forward=layers + products.logits(t),
        backward=backward,
        recomputed=layers - last_products if remat else 0,
    )


def _decoder_only_step_flops(
    config: DecoderOnlyConfig, batch: int, p: int, s: int, t: int, remat: bool
) -> StepFlops:
    """Returns the same of a decoder-only model, with a prefill of s positions and t of the target.

    The prefill of the last layer ends with its keys and values. The first layer is as in an
    encoder-decoder: of the prefill, only the prompt's queries, keys and values need a gradient; of
    the target, none do.
    """
    products = _Products(config, batch)
    of_block, attention, mlp = products.of_block, products.attention, products.mlp
    layers = products.layers(_SELF)
    keys = of_block(s, _SELF, "key", "value")
    prefill = products.self_attention(_SELF, s, s * s) + mlp("decoder", s)
    target = products.self_attention(_SELF, t, t * (s + t)) + mlp("decoder", t)
    forward = (layers - 1) * prefill + keys + layers * target
    last_products = of_block((layers - 1) * s + layers * t, "decoder/mlp", "wo")
    if config.decoder.post_norms:
        last_products = 0  # what is normed is needed

    first = (
        of_block(p, _SELF, "query", "key", "value")
        + 3 * attention(_SELF, p * s)
        + attention(_SELF, 2 * p * s - p * p)
        + 3 * attention(_SELF, t * p)
        + of_block(s + t, _SELF, "out")
        + mlp("decoder", s + t)
    )
    upper_prefill = prefill + 2 * attention(_SELF, s * s)
    upper_target = target + 2 * attention(_SELF, t * (s + t))
    backward = first + (layers - 2) * upper_prefill + keys + (layers - 1) * upper_target
    return StepFlops(
        forward=forward + products.logits(t),
        backward=backward + products.logits(t),
        recomputed=forward - last_products if remat else 0,
    )
