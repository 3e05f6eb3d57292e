"""Beam search with any decoding step (length penalty: Wu et al., 2016, section 7)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.models.slots import KeyValue

Step = Callable[
    [Int[Array, "rows"], KeyValue, Int[Array, ""]], tuple[Float[Array, "rows vocab"], KeyValue]
]

# The score of a missing hypothesis; finite, so that differences aren't NaN.
NONE = -1e7


class _State(NamedTuple):
    position: Int[Array, ""]
    running: Int[Array, "batch beam length"]
    running_scores: Float[Array, "batch beam"]
    finished: Int[Array, "batch beam length"]
    finished_scores: Float[Array, "batch beam"]
    self_kv: KeyValue


def beam_search(
    step: Step,
    self_kv: KeyValue,
    *,
    batch: int,
    beam_size: int,
    max_length: int,
    length_penalty: float,
    pad_id: int,
    eos_id: int,
) -> Int[Array, "batch length"]:
    """Returns each example's best hypothesis, padded after its end.

    A hypothesis scores its summed log-probability over `((5 + tokens) / 6) ** length_penalty`. One
    that ends outside the best `beam_size` candidates of its step is dropped; one that reaches
    `max_length` competes unfinished. Both are as in `transformers`.

    Args:
      step: maps the last tokens, the previous keys and values, and the position to logits and
        the next keys and values.
      self_kv: the initial keys and values, with `batch * beam_size` rows on axis 1; each
        example's beams are consecutive.
      batch: the number of examples.
      beam_size: hypotheses kept per example.
      max_length: the maximum length in tokens.
      length_penalty: 0 for none; higher favors longer hypotheses.
      pad_id: the start token and padding of a target.
      eos_id: the token that ends a hypothesis.
    """

    def normalizer(length: Int[Array, ""] | int) -> Float[Array, ""]:
        return jnp.power((5.0 + length) / 6.0, length_penalty)

    def advance(state: _State) -> _State:
        position = state.position
        # At position 0 this reads padding, which is T5's start token.
        last = jax.lax.dynamic_index_in_dim(
            state.running, jnp.maximum(position - 1, 0), axis=2, keepdims=False
        )
        logits, self_kv = step(last.reshape(-1), state.self_kv, position)
        log_probabilities = jax.nn.log_softmax(logits).reshape(batch, beam_size, -1)
        totals = state.running_scores[:, :, None] + log_probabilities
        vocab_size = totals.shape[-1]
        # Twice the beam: even if half of them end here, a full beam continues.
        scores, flat = jax.lax.top_k(totals.reshape(batch, -1), 2 * beam_size)  # [batch, 2 * beam]
        beams, tokens = flat // vocab_size, flat % vocab_size
        candidates = jnp.take_along_axis(state.running, beams[:, :, None], axis=1)
        candidates = jax.lax.dynamic_update_index_in_dim(candidates, tokens, position, axis=2)

        ends = (tokens == eos_id) | (position == max_length - 1)
        scores_running, kept = jax.lax.top_k(jnp.where(ends, NONE, scores), beam_size)
        beams = jnp.take_along_axis(beams, kept, axis=1)
        rows = (beams + beam_size * jnp.arange(batch)[:, None]).reshape(-1)
        self_kv = jax.tree.map(lambda x: jnp.take(x, rows, axis=1), self_kv)  # [layer, rows, ...]

        eligible = ends & (jnp.arange(2 * beam_size) < beam_size)
        normalized = jnp.where(eligible, scores / normalizer(position + 1), NONE)
        finished_scores, best = jax.lax.top_k(
            jnp.concatenate([state.finished_scores, normalized], axis=1), beam_size
        )
        finished = jnp.concatenate([state.finished, candidates], axis=1)
        return _State(
            position=position + 1,
            running=jnp.take_along_axis(candidates, kept[:, :, None], axis=1),
            running_scores=scores_running,
            finished=jnp.take_along_axis(finished, best[:, :, None], axis=1),
            finished_scores=finished_scores,
            self_kv=self_kv,
        )

    def unfinished(state: _State) -> Bool[Array, ""]:
        best_possible = state.running_scores[:, 0] / normalizer(max_length)
        improvable = jnp.any(best_possible > state.finished_scores[:, -1])
        return (state.position < max_length) & improvable

    empty = jnp.full((batch, beam_size, max_length), pad_id, jnp.int32)
    nothing = jnp.full((batch, beam_size), NONE)
    start = _State(
        position=jnp.int32(0),
        running=empty,
        # All beams start equal: only the first counts, or the step would choose copies.
        running_scores=nothing.at[:, 0].set(0.0),
        finished=empty,
        finished_scores=nothing,
        self_kv=self_kv,
    )
    return jax.lax.while_loop(unfinished, advance, start).finished[:, 0]
