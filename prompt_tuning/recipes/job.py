"""Training options, and a run with its data and parameters in memory."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import optax

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter
from prompt_tuning.data.batching import Batch, BatchStream
from prompt_tuning.data.findings import findings
from prompt_tuning.data.mixtures import proportional_rates
from prompt_tuning.data.token_batches import TokenBatchStream
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.methods.base import Method, Trained, bind
from prompt_tuning.models.compute import AUTO
from prompt_tuning.parallel.mesh import DATA_AXIS, check_batch, replicate
from prompt_tuning.recipes.frozen_base import Base, weights_hash
from prompt_tuning.recipes.identity import IN_USE
from prompt_tuning.recipes.paths import run_folder
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.scoring import scorer_of_many, withheld
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data, added_lengths, prompt_length
from prompt_tuning.settings import Assigned, Fields, Free, HashedFiles, PerMember
from prompt_tuning.training.keys import stream_key
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.run import Evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Training options except the base and the data; pre-training has no method.

    Attributes:
      folder: the run folder.
      report_split: a split on which the best step is scored when training ends, such as "test";
        None scores none.
      teachers: prompt files, one per task, to distill with the weight `distillation`.
    """

    folder: Assigned[str]
    method: Callable[[Base], Method] | None
    optimizer: optax.GradientTransformation
    options: Fields[TrainOptions]
    loss: Fields[LossOptions]
    report_split: PerMember[Free[str | None]] = None
    teachers: HashedFiles[Sequence[str] | None] = None
    distillation: float = 0.9

    def __post_init__(self) -> None:
        run_folder(self.folder)

    @property
    def path(self) -> FilePath:
        """The run folder."""
        return as_path(run_folder(self.folder))

    def make_method(self, base: Base) -> Method:
        """Returns the method; raises UserError if there is none."""
        if self.method is None:
            raise UserError(
                "train.method is None, as for pre-training; set it, as methods/*.gin do."
            )
        return self.method(base)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A training run with its data and initial parameters in memory.

    Attributes:
      training_splits: one per task, in the order of `data.tasks`; empty for user-provided batches.
      development_splits: likewise, used to select the best prompt.
      batch: step -> batch, a pure function.
      evaluate: scores several adapters at once to select the best; None keeps the last.
      report: scores an adapter on `training.report_split`; None if there is none.
      trained: the initial trainable parameters, replicated; trained weights keep the layout of
        the frozen ones.
      findings: lines about the data, printed at the start of a run.
    """

    base: Base
    data: Data
    prediction: Prediction
    training: Training
    training_splits: Sequence[TokenizedSplit]
    development_splits: Sequence[TokenizedSplit]
    batch: Callable[[int], Batch]
    evaluate: Callable[[Sequence[Adapter]], Sequence[Evaluation]] | None
    method: Method
    trained: Trained
    report: Callable[[Adapter], Evaluation] | None = None
    findings: Sequence[str] = ()

    @property
    def truncated(self) -> dict[str, dict[str, int]]:
        """The number of truncated examples in each split, by feature."""
        splits = [*self.training_splits, *self.development_splits]
        return {f"{split.task} {split.split}": dict(split.truncated) for split in splits}

    @property
    def contents(self) -> dict[str, Any]:
        """Short hashes of the contents that settings refer to by path, and what 'auto' came to.

        A run doesn't resume if the data, weights or vocabulary at these paths have changed.
        """
        return {
            "contents of the vocabulary": self.base.vocabulary.hash[:16],
            "contents of the data": self.data_hash,
            "contents of the frozen weights": weights_hash(self.base.params),
            IN_USE: self.base.in_use,
        }

    @property
    def data_hash(self) -> str:
        """A short hash of the training and development tokens."""
        tokens = hashlib.sha256()
        for split in [*self.training_splits, *self.development_splits]:
            for array in (split.inputs.values, split.inputs.offsets, split.targets.values):
                tokens.update(array.tobytes())
            tokens.update(split.metadata_json)
        return tokens.hexdigest()[:16]


Load = Callable[[Base, Data, str], list[TokenizedSplit]]
"""A function from a split's name to that split of every task."""


def prepare(
    base: Base,
    data: Data,
    prediction: Prediction,
    training: Training,
    *,
    load: Load = load_splits,
    part: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext,
    side_by_side: int = 1,
) -> Job:
    """Loads the data, and initializes the method.

    `load` lets several jobs share their data. `part(name)` is a context manager entered while
    loading the "data". `side_by_side` is the number of jobs whose steps one program makes.

    Raises:
      UserError: the data can't be read, don't suit the method, or can't be sharded over the
        devices.
    """
    check_batch(data.batch_size, base.mesh, training.options.accumulation_steps)
    method = training.make_method(base)
    seed = training.options.seed
    with part("data"):
        splits = load(base, data, "train")
        development_splits = load(base, data, prediction.split)
        reported = training.report_split
        report_splits = [] if reported is None else load(base, data, reported)
    if withheld(report_splits):
        raise UserError(
            f"train.report_split is '{reported}', whose labels {data.name} withholds; set it to "
            "None or to another split."
        )
    rates = data.rates or proportional_rates([len(split) for split in splits])
    # Each microbatch is sharded evenly over the devices.
    parts = base.mesh.shape[DATA_AXIS] * training.options.accumulation_steps
    key = stream_key(seed, "prompt_init")
    budget = data.token_budget(
        parts,
        lambda: prompt_length(lambda batch: method.apply(method.init(key, batch), batch), splits),
    )
    if budget is None:
        stream = BatchStream(
            splits,
            batch_size=data.batch_size,
            seed=seed,
            rates=rates,
            num_lengths=data.num_lengths,
        )
    else:
        stream = TokenBatchStream(splits, budget=budget, seed=seed, rates=rates)
    base, method, trained = initialized(
        base,
        method,
        training.options,
        stream.batch(0),
        rows=side_by_side * (budget.rows(data.lengths["inputs"]) if budget else data.batch_size),
        lengths=data.lengths,
    )
    score = scorer_of_many(base, data, prediction, development_splits)
    report = scorer_of_many(base, data, prediction, report_splits)
    return Job(
        base=base,
        data=data,
        prediction=prediction,
        training=training,
        training_splits=splits,
        development_splits=development_splits,
        batch=stream.batch,
        evaluate=lambda adapters: score([adapter.inject for adapter in adapters]),
        method=method,
        trained=trained,
        report=(lambda adapter: report([adapter.inject])[0]) if report_splits else None,
        findings=findings(data.tasks, splits, development_splits, data.data_dir),
    )


def initialized(
    base: Base,
    method: Method,
    options: TrainOptions,
    batch: Batch,
    *,
    rows: int,
    lengths: Mapping[str, int],
) -> tuple[Base, Method, Trained]:
    """Returns the base for training, the method, and its initial parameters on the devices.

    `batch` is that of step 0; `rows` and `lengths` are the sizes of the largest.
    """
    method, trained = bind(method, method.init(stream_key(options.seed, "prompt_init"), batch))
    if base.compute.remat == AUTO:
        added = added_lengths(lambda batch: method.apply(trained, batch), batch)
        base = base.with_remat_decided(
            trained,
            rows=-(-rows // options.accumulation_steps),
            source=added[0] + lengths["inputs"],
            target=added[1] + lengths["targets"],
        )
    return base, method, _lay_out(trained, base)


def _lay_out(trained: Trained, base: Base) -> Trained:
    """Replicates the trainable parameters, but shards trained weights like the frozen ones."""
    if base.mesh.size == 1:
        return trained
    shardings = base.layout.trained_shardings(trained, base.params)
    return jax.tree.map(
        lambda leaf, sharding: (
            leaf if getattr(leaf, "sharding", None) == sharding else replicate(leaf, base.mesh)
        ),
        trained,
        shardings,
    )
