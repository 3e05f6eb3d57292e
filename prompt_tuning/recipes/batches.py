"""User-provided batches in the form training takes: step -> batch."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter
from prompt_tuning.data.batching import Batch
from prompt_tuning.errors import UserError, listed
from prompt_tuning.models.config import ModelConfig
from prompt_tuning.parallel.mesh import check_batch, shard_batch
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.job import Job, Training, initialized
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.step import injection_loss_fn

GivenBatch = Mapping[str, Any]
"""Arrays under SeqIO's names: `encoder_input_tokens` [batch, source] and `decoder_target_tokens`
[batch, target], int. Optional, by default derived from the targets: `decoder_input_tokens` [batch,
target], int, and `decoder_loss_weights` [batch, target], float. For mixtures: `task` [batch],
int."""

Batches = Callable[[int], GivenBatch] | Iterable[GivenBatch]
"""A function from the step, starting at 0, to its batch; or an iterable of batches."""

Score = Callable[[Adapter], Evaluation | float]
"""A function from the adapter in training to its score (higher is better)."""

_NEEDED = ("encoder_input_tokens", "decoder_target_tokens")
_TOKENS = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
_NAMES = (*_TOKENS, "decoder_loss_weights", "task")


class BatchSource:
    """Validated batches by step; an iterable is advanced to the step."""

    def __init__(self, batches: Batches, config: ModelConfig):
        self._given, self._config = batches, config
        self._iterator: Iterator[GivenBatch] = iter(())
        self._made = 0
        self._last: GivenBatch | None = None

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step, which may precede the latest by at most one.

        Raises:
          UserError: the batch is missing or invalid.
        """
        if callable(self._given):
            found = self._given(step)
        elif isinstance(self._given, Sequence) and self._given:
            found = self._given[step % len(self._given)]
        else:
            found = self._advanced(step)
        return whole_batch(found, f"The batch of step {step}", self._config)

    def _advanced(self, step: int) -> GivenBatch:
        assert not callable(self._given)
        while self._last is None or self._made <= step:
            self._last = next(self._iterator, None)
            if self._last is None:
                again = iter(self._given)
                self._last = None if again is self._iterator else next(again, None)
                self._iterator = again
            if self._last is None:
                raise UserError(
                    f"The batches end after {self._made:,}, but step {step:,} needs another; give "
                    "more, a function of the step, or an iterable that can be iterated again."
                )
            self._made += 1
        return self._last


def whole_batch(batch: GivenBatch, what: str, config: ModelConfig) -> Batch:
    """Returns a batch as NumPy arrays, with missing ones derived from the targets.

    Args:
      batch: the user's batch.
      what: its name in messages.
      config: the model's.

    Raises:
      UserError: a name is missing or unknown, shapes don't match, or an id is out of range.
    """
    if not isinstance(batch, Mapping) or set(batch) - set(_NAMES) or set(_NEEDED) - set(batch):
        found = listed(sorted(map(str, batch))) if isinstance(batch, Mapping) else repr(type(batch))
        raise UserError(
            f"{what} has {found}; expected a dict of arrays under {' and '.join(_NEEDED)}, and "
            f"optionally {', '.join(name for name in _NAMES if name not in _NEEDED)}."
        )
    arrays = {name: np.asarray(values) for name, values in batch.items()}
    targets = arrays["decoder_target_tokens"]
    if "decoder_input_tokens" not in arrays:
        shifted = np.roll(targets, 1, axis=-1)
        shifted[..., 0] = config.start_id
        arrays["decoder_input_tokens"] = shifted
    if "decoder_loss_weights" not in arrays:
        arrays["decoder_loss_weights"] = targets != config.pad_id
    rows = len(arrays["encoder_input_tokens"])
    for name, array in arrays.items():
        dimensions = 1 if name == "task" else 2
        like_targets = name.startswith("decoder") and array.shape != targets.shape
        if array.ndim != dimensions or len(array) != rows or like_targets:
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise UserError(
                f"{what} has the shapes {shapes}; expected [batch, source] for the encoder, "
                "[batch, target] for the decoder and [batch] for the task."
            )
        if (
            name in _TOKENS
            and array.size
            and not 0 <= array.min() <= array.max() < config.vocab_size
        ):
            raise UserError(
                f"{what} has ids from {array.min()} to {array.max()} in {name}; expected 0 to "
                f"{config.vocab_size - 1}, the ids of the model's vocabulary."
            )
    kinds = {"decoder_loss_weights": np.float32}
    return {name: array.astype(kinds.get(name, np.int32)) for name, array in arrays.items()}


def prepare_batches(
    base: Base,
    data: Data,
    prediction: Prediction,
    training: Training,
    batches: BatchSource,
    evaluate: Score | None,
) -> Job:
    """Creates a job from batches, and initializes the method.

    Raises:
      UserError: as `BatchSource.batch`, or a batch can't be sharded over the devices.
    """
    check_batch(data.batch_size, base.mesh, training.options.accumulation_steps)
    base, method, trained = initialized(
        base,
        training.make_method(base),
        training.options,
        batches.batch(0),
        rows=data.batch_size,
        lengths=data.lengths,
    )
    return Job(
        base=base,
        data=data,
        prediction=prediction,
        training=training,
        training_splits=(),
        development_splits=(),
        batch=batches.batch,
        evaluate=None if evaluate is None else _of_many(evaluate),
        method=method,
        trained=trained,
        findings=[f"{data.name}, given from Python"],
    )


def hash_of_batch(batch: Batch) -> str:
    """Returns a short hash of a batch; the first one's identifies a run."""
    digest = hashlib.sha256()
    for name, array in sorted(batch.items()):
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]


def _of_many(evaluate: Score) -> Callable[[Sequence[Adapter]], list[Evaluation]]:
    def evaluated(adapter: Adapter) -> Evaluation:
        found = evaluate(adapter)
        if isinstance(found, Evaluation):
            return found
        return Evaluation(metrics={"score": float(found)}, score=float(found))

    return lambda adapters: [evaluated(adapter) for adapter in adapters]


def loss_of_batches(base: Base, batches: Iterable[GivenBatch]) -> Score:
    """Returns a function that scores an adapter by its loss, in nats per token, on batches.

    The loss is the cross-entropy only, without dropout. The score is the negative loss.
    """
    given = [
        whole_batch(batch, f"Batch {number} of the evaluation", base.config)
        for number, batch in enumerate(batches)
    ]
    if not given:
        raise UserError("evaluate has no batches; give at least one, or None to evaluate nothing.")
    exact = dataclasses.replace(base.compute, dropout_rate=0.0)
    model = dataclasses.replace(base, compute=exact).model
    loss_fn = jax.jit(injection_loss_fn(model, LossOptions()))
    unused_key = jax.random.key(0)

    def evaluate(adapter: Adapter) -> Evaluation:
        sums = np.zeros(2)
        for each in given:
            batch = shard_batch(each, base.mesh)
            sums += jax.device_get(loss_fn(adapter.inject(batch), base.params, batch, unused_key))
        loss = float(sums[0] / sums[1])
        return Evaluation(metrics={"loss": loss}, score=-loss)

    return evaluate
