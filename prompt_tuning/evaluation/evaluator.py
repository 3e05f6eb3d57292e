"""From batches to predictions to metrics; what training, `evaluate` and `infer` have in common.

    predictor = decoding_predictor(model, options, vocabulary.decode)
    inject = functools.partial(method.apply, trained)
    metrics, predictions = evaluate(predictor, frozen, inject, batches, metric_fn)

A saved prompt's score is reproduced to the last digit because there is one program: all three
callers run the function compiled here, on (frozen, injection, tokens), and the injection
is made outside it, so that a prompt from a file and the same prompt in training are the same
argument of the same executable. Rounding does depend on the shape of a batch; whoever compares
scores uses the same batch size. Batches come as values: how text became ids is `data`'s
affair, what the metric is the task's.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int, PRNGKeyArray

from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.rank import LOGIT_BYTES, RankOptions, label_scores
from prompt_tuning.host_memory import check_memory
from prompt_tuning.methods.base import Batch
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import stack_injections
from prompt_tuning.models.t5 import T5, Params

Inject = Callable[[Batch], Injection]
"""A method with its trained numbers: `functools.partial(method.apply, trained)`."""

IndexedBatch = tuple[Batch, Sequence[int] | np.ndarray]
"""A batch and the index of the example in each of its first rows; later rows are padding."""

Metrics = Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictor:
    """A way of getting an answer out of the model.

    Attributes:
      run: compiled, once for each shape: (frozen, injection, encoder_input_tokens, key) -> one
        row of numbers an example. Only sampling draws on the key. `prompts` is how many of it run
        side by side, mapped by `run_many`, and share the memory for logits.
      read: turns an example's row into its predicted text.
      scores: gives the score of each label from an example's row; empty where nothing is ranked.
    """

    run: Callable[..., Array]
    read: Callable[[np.ndarray], str]
    scores: Callable[[np.ndarray], dict[str, float]] = lambda row: {}

    @functools.cached_property
    def run_many(self) -> Callable[[Params, Sequence[Injection], Array, PRNGKeyArray], Array]:
        """`run` for several injections on the same inputs: rows [injections, batch, ...]."""

        def run_many(frozen, injections, encoder_input_tokens, key):
            arrays, injection_of = stack_injections(injections)
            run = functools.partial(self.run, prompts=len(injections))
            return jax.vmap(
                lambda arrays: run(frozen, injection_of(arrays), encoder_input_tokens, key)
            )(arrays)

        return jax.jit(run_many)


def decoding_predictor(
    model: T5, options: DecodingOptions, decode: Callable[[Iterable[int]], str]
) -> Predictor:
    """Predicts by generating text: greedily, with a beam, or by sampling, as `options` say.

    Args:
      model: the network.
      options: how to decode, and how many tokens at most.
      decode: gives the text of token ids up to the end of sequence.
    """

    @functools.partial(jax.jit, static_argnames="prompts")
    def run(
        frozen: Params,
        injection: Injection,
        encoder_input_tokens: Int[Array, "batch source"],
        key: PRNGKeyArray,
        *,
        prompts: int = 1,
    ) -> Int[Array, "batch target"]:
        del prompts
        return generate(model, frozen, encoder_input_tokens, injection, options, key)

    return Predictor(run=run, read=lambda ids: decode(ids.tolist()))


def rank_predictor(
    model: T5,
    label_ids: Int[np.ndarray, "labels target"],
    labels: Sequence[str],
    options: RankOptions = RankOptions(),
) -> Predictor:
    """Predicts the likeliest of a task's labels (see `rank.py`); of equals, the first.

    Args:
      model: the network.
      label_ids: each label's token ids with end of sequence, padded.
      labels: the labels' words, in the same order.
      options: how their scores are corrected.

    Raises:
      UserError: there are no labels to choose among.
    """
    if not labels:
        raise UserError(
            "Rank classification needs the task's labels, but this task generates free text. "
            "Evaluate it with greedy decoding."
        )

    @functools.partial(jax.jit, static_argnames="prompts")
    def run(
        frozen: Params,
        injection: Injection,
        encoder_input_tokens: Int[Array, "batch source"],
        key: PRNGKeyArray,
        *,
        prompts: int = 1,
    ) -> Float[Array, "batch labels"]:
        del key
        ids = jnp.asarray(label_ids)
        return label_scores(
            model,
            frozen,
            encoder_input_tokens,
            injection,
            ids,
            options,
            logit_bytes=LOGIT_BYTES // prompts,
        )

    return Predictor(
        run=run,
        read=lambda scores: labels[int(np.argmax(scores))],
        scores=lambda scores: dict(zip(labels, scores.tolist(), strict=True)),
    )


def predict_rows(
    predictor: Predictor,
    frozen: Params,
    inject: Inject,
    batches: Iterable[IndexedBatch],
    *,
    seed: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (example index, the row that `predictor` reads), batch by batch as the batches come.

    Args:
      predictor: how to get an answer.
      frozen: the model's weights.
      inject: gives the injection for a batch.
      batches: needs only "encoder_input_tokens" in each; rows past the indices are skipped.
      seed: for sampling; batch i draws from a key of its own.
    """
    key = jax.random.key(seed)
    for position, (batch, indices) in enumerate(batches):
        arguments = (
            frozen,
            inject(batch),
            jnp.asarray(batch["encoder_input_tokens"]),
            jax.random.fold_in(key, position),
        )
        check_memory(predictor.run, *arguments)
        rows = predictor.run(*arguments)
        for index, row in zip(indices, _whole(rows), strict=False):
            yield int(index), row


def predict(
    predictor: Predictor,
    frozen: Params,
    inject: Inject,
    batches: Iterable[IndexedBatch],
    *,
    seed: int = 0,
) -> Iterator[tuple[int, str]]:
    """Yields (example index, predicted text); otherwise as `predict_rows`."""
    for index, row in predict_rows(predictor, frozen, inject, batches, seed=seed):
        yield index, predictor.read(row)


def _whole(rows: Array) -> np.ndarray:
    """Returns every row of a batch, those on the devices of other processes too."""
    if rows.is_fully_addressable or rows.is_fully_replicated:
        return np.asarray(rows)
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def evaluate(
    predictor: Predictor,
    frozen: Params,
    inject: Inject,
    batches: Iterable[IndexedBatch],
    metric_fn: Callable[[Sequence[str]], Metrics],
    *,
    seed: int = 0,
) -> tuple[dict[str, float], list[str]]:
    """Predicts every example and measures the predictions.

    Args:
      predictor: how to get an answer.
      frozen: the model's weights.
      inject: gives the injection for a batch.
      batches: every example once, in any order.
      metric_fn: gives the metrics of predictions in the order of the examples' indices.
      seed: for sampling.

    Returns:
      The metrics, and the predictions in the order of the examples' indices.

    Raises:
      UserError: there are no examples.
    """
    return _measured(dict(predict(predictor, frozen, inject, batches, seed=seed)), metric_fn)


def evaluate_many(
    predictor: Predictor,
    frozen: Params,
    injects: Sequence[Inject],
    batches: Iterable[IndexedBatch],
    metric_fn: Callable[[Sequence[str]], Metrics],
    *,
    seed: int = 0,
) -> list[tuple[dict[str, float], list[str]]]:
    """Evaluates several injections in one pass over the examples, as `evaluate` does each.

    The memory for activations grows with their number.
    """
    key = jax.random.key(seed)
    found: list[dict[int, str]] = [{} for _ in injects]
    for position, (batch, indices) in enumerate(batches):
        arguments = (
            frozen,
            tuple(inject(batch) for inject in injects),
            jnp.asarray(batch["encoder_input_tokens"]),
            jax.random.fold_in(key, position),
        )
        check_memory(predictor.run_many, *arguments)
        rows = predictor.run_many(*arguments)
        for by_index, of_one in zip(found, np.asarray(rows), strict=True):
            for index, row in zip(indices, of_one, strict=False):
                by_index[int(index)] = predictor.read(row)
    return [_measured(by_index, metric_fn) for by_index in found]


def _measured(
    by_index: Mapping[int, str], metric_fn: Callable[[Sequence[str]], Metrics]
) -> tuple[dict[str, float], list[str]]:
    if not by_index:
        raise UserError("There are no examples to evaluate: the split is empty.")
    predictions = [by_index[index] for index in sorted(by_index)]
    return {name: float(value) for name, value in metric_fn(predictions).items()}, predictions
