"""Answers of a frozen model with one injection or several.

    answerer = Answerer(model=model, frozen=frozen, options=DecodingOptions(), decode=decode)
    [predictions] = answerer.predict([inject], batches)

Evaluation during training, `evaluate`, `infer`, `serve` and ensembles all run the program compiled
here, on (frozen, injections, tokens). Injections are computed outside it, so a prompt is the same
argument of the same executable whether it comes from training or from a file: scores are reproduced
bit for bit. (Up to rounding for members of a population, which training scores together.) Rounding
also depends on the shape of a batch; compare scores of one batch size.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.ensemble import Ballot
from prompt_tuning.evaluation.rank import (
    LOGIT_BYTES,
    RankOptions,
    label_scores,
    target_log_likelihoods,
)
from prompt_tuning.host_memory import check_memory
from prompt_tuning.methods.base import Batch
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import stack_injections
from prompt_tuning.models.t5 import Params
from prompt_tuning.parallel.mesh import gathered

Inject = Callable[[Batch], Injection]
"""A method with its trained parameters: `functools.partial(method.apply, trained)`."""

IndexedBatch = tuple[Batch, Sequence[int] | np.ndarray]
"""A batch and the index of the example in each of its first rows; later rows are padding."""


class Outputs(NamedTuple):
    """Answers of several injections to the examples of a batch, or to one example.

    Attributes:
      choices: generated token ids, [injections, batch, target], or the index of the likeliest
        label, [injections, batch].
      scores: log-likelihoods in nats, [injections, batch, answers], of the labels or of each
        injection's generated answer; None for generated answers that aren't compared.
    """

    choices: Any
    scores: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answerer:
    """Answers by generating text or by ranking labels.

    Attributes:
      model: the network.
      frozen: its weights.
      options: how to decode, or how to correct the scores of labels.
      decode: returns the text of token ids up to the end of sequence.
      labels: the labels to rank.
      label_ids: each label's token ids with end of sequence, padded. Rows after those of `labels`
        must repeat the last one: a padding row can then only tie, and argmax takes the first.
    """

    model: FrozenModel
    frozen: Params
    options: DecodingOptions | RankOptions
    decode: Callable[[Iterable[int]], str] = str
    labels: Sequence[str] = ()
    label_ids: Int[np.ndarray, "labels target"] | None = None

    def answer(
        self,
        injections: Sequence[Injection],
        encoder_input_tokens: Int[Array | np.ndarray, "batch source"],
        key: Key[Array, "..."] | None = None,
        *,
        compare: bool = False,
    ) -> Outputs:
        """Answers a batch with each injection; compiles one program per shape and their number.

        Args:
          injections: stackable ones; see `models/stacking.py`.
          encoder_input_tokens: padded inputs.
          key: for sampling only; one for the batch, or one per example.
          compare: whether every injection also scores the others' generated answers.

        Raises:
          UserError: a host without an accelerator has too little memory.
          UnlikeInjectionsError: the injections can't be stacked.
        """
        run = _program(self.model, self.options, compare)  # pyright: ignore[reportArgumentType]
        arguments = (self.frozen, tuple(injections), encoder_input_tokens, key, self.label_ids)
        check_memory(run, *arguments)
        return jax.tree.map(gathered, run(*arguments))

    def text(self, choice: Any) -> str:
        """Returns the text of one example's share of `Outputs.choices`."""
        if self.label_ids is None:
            return self.decode(choice.tolist())
        return self.labels[int(choice)]

    def outputs(
        self,
        injects: Sequence[Inject],
        batches: Iterable[IndexedBatch],
        *,
        seed: int = 0,
        compare: bool = False,
    ) -> Iterator[tuple[int, Outputs]]:
        """Yields each example's index and its share of `Outputs`, batch by batch.

        Args:
          injects: return the injections for a batch; activation memory grows with their number.
          batches: only their "encoder_input_tokens" are used.
          seed: for sampling; each batch has its own key.
          compare: as in `answer`.
        """
        samples = isinstance(self.options, DecodingOptions) and self.options.method == "sample"
        key = jax.random.key(seed) if samples else None
        for position, (batch, indices) in enumerate(batches):
            choices, scores = self.answer(
                [inject(batch) for inject in injects],
                batch["encoder_input_tokens"],
                None if key is None else jax.random.fold_in(key, position),
                compare=compare,
            )
            for row, index in enumerate(indices):
                yield (
                    int(index),
                    Outputs(choices[:, row], None if scores is None else scores[:, row]),
                )

    def predict(
        self, injects: Sequence[Inject], batches: Iterable[IndexedBatch], *, seed: int = 0
    ) -> list[list[str]]:
        """Returns each injection's answers, in the order of the examples' indices.

        Raises:
          UserError: there are no examples.
        """
        found = _in_order(self.outputs(injects, batches, seed=seed))
        return [[self.text(outputs.choices[i]) for outputs in found] for i in range(len(injects))]

    def ballots(
        self, injects: Sequence[Inject], batches: Iterable[IndexedBatch], *, seed: int = 0
    ) -> list[Ballot]:
        """Returns the votes of several injections, in the order of the examples' indices.

        Each votes for its own answer, and scores the others'. Generated answers with the same text
        count as one, with the likelihood of the likeliest spelling.

        Raises:
          UserError: there are no examples.
        """
        found = _in_order(self.outputs(injects, batches, seed=seed, compare=True))
        return [self._ballot(outputs) for outputs in found]

    def _ballot(self, outputs: Outputs) -> Ballot:
        if self.label_ids is not None:
            votes = tuple(map(int, outputs.choices))
            return Ballot(answers=tuple(self.labels), log_likelihoods=outputs.scores, votes=votes)
        texts = [self.text(choice) for choice in outputs.choices]
        answers = tuple(dict.fromkeys(texts))
        columns = [
            outputs.scores[:, [text == answer for text in texts]].max(axis=1) for answer in answers
        ]
        return Ballot(
            answers=answers,
            log_likelihoods=np.stack(columns, axis=1),
            votes=tuple(map(answers.index, texts)),
        )


def _in_order(outputs: Iterable[tuple[int, Outputs]]) -> list[Outputs]:
    by_index = dict(outputs)
    if not by_index:
        raise UserError("There are no examples to evaluate: the split is empty.")
    return [by_index[index] for index in sorted(by_index)]


@functools.cache
def _program(model: FrozenModel, options: DecodingOptions | RankOptions, compare: bool) -> Any:
    """Returns the jitted function of `Answerer.answer`, shared by all answerers of a model."""

    @jax.jit
    def run(
        frozen: Params,
        injections: tuple[Injection, ...],
        encoder_input_tokens: Int[Array, "batch source"],
        key: Key[Array, "..."] | None,
        label_ids: Int[Array, "labels target"] | None,
    ) -> Outputs:
        # Injections that run together share the memory for logits.
        logit_bytes = LOGIT_BYTES // len(injections)

        def rank(injection: Injection) -> Float[Array, "batch labels"]:
            assert label_ids is not None and isinstance(options, RankOptions)
            return label_scores(
                model,
                frozen,
                encoder_input_tokens,
                injection,
                label_ids,
                options,
                logit_bytes=logit_bytes,
            )

        def decode(injection: Injection) -> Int[Array, "batch target"]:
            assert isinstance(options, DecodingOptions)
            return generate(model, frozen, encoder_input_tokens, injection, options, key)

        if isinstance(options, RankOptions):
            scores = _map(rank, injections)  # [injections, batch, labels]
            return Outputs(jnp.argmax(scores, axis=-1), scores)
        ids = _map(decode, injections)  # [injections, batch, target]
        if not compare:
            return Outputs(ids)
        answers = jnp.swapaxes(ids, 0, 1)

        def score(injection: Injection) -> Float[Array, "batch answers"]:
            return target_log_likelihoods(
                model, frozen, encoder_input_tokens, injection, answers, logit_bytes=logit_bytes
            )

        return Outputs(ids, _map(score, injections))

    return run


def _map(function: Callable[[Injection], Array], injections: Sequence[Injection]) -> Array:
    """Returns the function's results for each injection, stacked; a single one isn't vmapped."""
    if len(injections) == 1:
        return function(injections[0])[None]
    arrays, injection_of = stack_injections(injections)
    return jax.vmap(lambda arrays: function(injection_of(arrays)))(arrays)
