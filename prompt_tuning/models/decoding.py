"""Text generation: greedy, beam search and sampling with cached keys and values.

One jitted function, whose while loop ends once all examples have ended. The keys and values of the
encoder's outputs are computed once, and an example's beams share them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from prompt_tuning.errors import UserError
from prompt_tuning.models.beam_search import beam_search
from prompt_tuning.models.encoder_decoder import Cache, FrozenModel
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.sampling import restrict
from prompt_tuning.models.slots import KeyValue
from prompt_tuning.models.t5 import Params


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """Options of text generation.

    Attributes:
      max_length: maximum number of tokens, end of sequence included.
      method: "greedy" takes the likeliest token, "beam" the likeliest sequence it finds, "sample"
        samples tokens.
      beam_size: hypotheses kept by beam search.
      length_penalty: of beam search; see beam_search.py.
      temperature: of sampling, like the next two; see sampling.py.
      top_k: 0 for no limit.
      top_p: 1 for no limit.
    """

    max_length: int = 32
    method: str = "greedy"
    beam_size: int = 4
    length_penalty: float = 0.6
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "max_length": (self.max_length >= 1, "at least 1"),
            "method": (self.method in ("greedy", "beam", "sample"), "greedy, beam or sample"),
            "beam_size": (self.beam_size >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
        }
        for name, (valid, expected) in limits.items():
            if not valid:
                raise UserError(
                    f"Decoding's {name} is {getattr(self, name)!r}; expected {expected}."
                )


class _State(NamedTuple):
    position: Int[Array, ""]
    tokens: Int[Array, "batch length"]
    finished: Bool[Array, "batch"]
    self_kv: KeyValue


@functools.partial(jax.jit, static_argnames=("model", "options"))
def generate(
    model: FrozenModel,
    frozen: Params,
    encoder_input_tokens: Int[Array, "batch source"],
    injection: Injection = Injection(),
    options: DecodingOptions = DecodingOptions(),
    key: Key[Array, "*examples"] | None = None,
) -> Int[Array, "batch length"]:
    """Returns `options.max_length` tokens per example, padded after the end.

    Args:
      model: the module.
      frozen: its weights.
      encoder_input_tokens: padded inputs; a row of only padding yields padding, except with beam
        search.
      injection: the method's.
      options: how to generate.
      key: for sampling only; one for the batch, or one per example, whose samples then don't
        depend on the rest of the batch.
    """
    config = model.config
    variables, injection = injected(frozen, injection)

    def apply(method: str, *arguments: Any) -> Any:
        return model.apply(variables, *arguments, method=method)

    encoded = apply("encode", encoder_input_tokens, injection)
    batch = encoder_input_tokens.shape[0]
    rows = batch * options.beam_size if options.method == "beam" else batch
    cache = apply("start_cache", encoded, rows, options.max_length)
    in_loop = prepared_for_loop(model, variables, cache.cross_kv)

    def step(
        tokens: Int[Array, "rows"], self_kv: KeyValue, position: Int[Array, ""]
    ) -> tuple[Float[Array, "rows vocab"], KeyValue]:
        variables, cross_kv = in_loop()
        cache = Cache(self_kv=self_kv, cross_kv=cross_kv)
        logits, advanced = model.apply(
            variables, encoded, tokens, cache, position, method="decode_step"
        )
        return logits, cast(Cache, advanced).self_kv

    if options.method == "beam":
        return beam_search(
            step,
            cache.self_kv,
            batch=batch,
            beam_size=options.beam_size,
            max_length=options.max_length,
            length_penalty=options.length_penalty,
            pad_id=config.pad_id,
            eos_id=config.eos_id,
        )

    def choose(
        logits: Float[Array, "batch vocab"], position: Int[Array, ""]
    ) -> Int[Array, "batch"]:
        if options.method == "greedy":
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        if key is None:
            raise ValueError("Sampling needs a key.")
        logits = restrict(
            logits,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
        )

        def draw(key: Key[Array, ""], logits: Float[Array, "*batch vocab"]) -> Int[Array, "*batch"]:
            return jax.random.categorical(jax.random.fold_in(key, position), logits)

        return (jax.vmap(draw) if key.ndim else draw)(key, logits).astype(jnp.int32)

    def advance(state: _State) -> _State:
        position, tokens, finished, self_kv = state
        # At position 0 this reads padding, which the model replaces by its start token.
        last = jax.lax.dynamic_index_in_dim(
            tokens, jnp.maximum(position - 1, 0), axis=1, keepdims=False
        )
        logits, self_kv = step(last, self_kv, position)
        chosen = jnp.where(finished, config.pad_id, choose(logits, position))
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, chosen, position, axis=1)
        return _State(position + 1, tokens, finished | (chosen == config.eos_id), self_kv)

    def unfinished(state: _State) -> Bool[Array, ""]:
        return (state.position < options.max_length) & ~jnp.all(state.finished)

    start = _State(
        position=jnp.int32(0),
        tokens=jnp.full((batch, options.max_length), config.pad_id, jnp.int32),
        # Rows that only pad a batch have no input; they mustn't keep the loop running.
        finished=jnp.all(encoder_input_tokens == config.pad_id, axis=1),
        self_kv=cache.self_kv,
    )
    return jax.lax.while_loop(unfinished, advance, start).tokens


def prepared_for_loop(
    model: FrozenModel, variables: dict[str, Params], cross_kv: KeyValue
) -> Callable[[], tuple[dict[str, Params], KeyValue]]:
    """Returns a function that rebuilds both arguments inside the body of a decoding loop.

    Unrolled layers read a slice of each stacked array, which XLA on CPUs would copy in every
    iteration. So arrays are sliced before the loop and stacked inside, where XLA removes the
    slicing of a stack.
    """
    params = variables["params"]
    if model.compute.unroll:
        return lambda: (variables, cross_kv)
    stacked = (params["decoder"]["layers"], cross_kv)
    slices = [
        jax.tree.map(lambda x, layer=layer: x[layer], stacked) for layer in range(len(cross_kv.key))
    ]

    def prepared() -> tuple[dict[str, Params], KeyValue]:
        layers, cross_kv = jax.tree.map(lambda *each: jnp.stack(each), *slices)
        decoder = {**params["decoder"], "layers": layers}
        return {"params": {**params, "decoder": decoder}}, cross_kv

    return prepared
