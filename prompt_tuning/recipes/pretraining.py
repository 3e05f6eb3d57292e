"""Pre-training: all weights of a model on plain text.

Steps, optimizer and run folder are those of `Training`, with no method.
"""

import dataclasses
import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import jax
import numpy as np

from prompt_tuning.data.corpora import (
    PretrainingStream,
    Text,
    c4_text,
    held_out,
    text_files,
    tokenized_text,
)
from prompt_tuning.data.feature_lengths import feature_lengths as lengths_of
from prompt_tuning.data.pretraining import piece_lengths
from prompt_tuning.data.tasks.tables import is_tfds
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError, at_least
from prompt_tuning.models.auto import resolved
from prompt_tuning.models.compute import AUTO, Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.t5 import Params
from prompt_tuning.parallel.mesh import check_batch, replicate, shard_batch
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.recipes import frozen_base
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.identity import IN_USE
from prompt_tuning.recipes.job import Training
from prompt_tuning.settings import Changeable
from prompt_tuning.training.keys import stream_key
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.step import model_loss_fn

_ROW_MULTIPLE = 128
_HASHED_BLOCKS, _HASHED_TOKENS = 1000, 4096


def new_model(
    vocabulary: Vocabulary,
    architecture: str,
    seed: int = 0,
    embed_dim: int | None = None,
    num_heads: int | None = None,
    head_dim: int | None = None,
    mlp_dim: int | None = None,
    num_encoder_layers: int | None = None,
    num_decoder_layers: int | None = None,
    embedding_stddev: float = 1.0,
    relative_bias_stddev: float | None = None,
    compute_dtype: str = AUTO,
    matmul_dtype: str = "",
    remat: Changeable[bool | Literal["auto"]] = AUTO,
    unroll: Changeable[int | Literal["auto"]] = AUTO,
    dropout_rate: float = 0.0,
) -> tuple[T5Config, Compute, Params]:
    """Random weights for a named architecture; sizes that are given replace its own.

    The embedding table has a row for each id of the vocabulary, padded to a multiple of 128 as in
    T5. Both `_stddev` are those of `init_params`.

    Raises:
      UserError: the architecture is unknown, a size is below 1, or a scale isn't positive.
    """
    sizes = {
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "head_dim": head_dim,
        "mlp_dim": mlp_dim,
        "num_encoder_layers": num_encoder_layers,
        "num_decoder_layers": num_decoder_layers,
    }
    given = {name: size for name, size in sizes.items() if size is not None}
    at_least(1, {f"new_model.{name}": size for name, size in given.items()})
    for name, stddev in {
        "embedding_stddev": embedding_stddev,
        "relative_bias_stddev": relative_bias_stddev,
    }.items():
        if stddev is not None and stddev <= 0:
            raise UserError(f"new_model.{name} is {stddev}; it must be above 0.")
    config = get_config(
        architecture,
        vocab_size=-(-len(vocabulary) // _ROW_MULTIPLE) * _ROW_MULTIPLE,
        **given,
    )
    if not isinstance(config, T5Config):
        raise UserError(f"new_model.architecture is {architecture!r}; expected one of T5's family.")
    compute = resolved(
        Compute(matmul_dtype=matmul_dtype, dropout_rate=dropout_rate),
        config,
        jax.default_backend(),
        compute_dtype=compute_dtype,
        remat=remat,
        unroll=unroll,
    )
    params = init_params(
        config,
        stream_key(seed, "model_init"),
        compute,
        embedding_stddev=embedding_stddev,
        relative_bias_stddev=relative_bias_stddev,
    )
    return config, compute, params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training text and held-out text.

    Attributes:
      shuffled: whether a prefix of the text represents all of it, so that only the part to train
        on needs to be read.
    """

    train: Text
    held_out: Text
    shuffled: bool


def corpus(
    text: Changeable[str | Sequence[str]],
    data_dir: Changeable[str | None] = None,
    drop_markup: bool = False,
    held_out_share: float = 0.01,
) -> Corpus:
    """The text, split into training and held-out lines.

    Args:
      text: one or more files, "c4", or one of its configs, such as "c4/realnewslike"; see
        `text_files` and `c4_text`. C4 is scored on its own validation split.
      data_dir: for C4, "tfds:FOLDER".
      drop_markup: as in `text_files`.
      held_out_share: see `held_out`.

    Raises:
      UserError: a file is missing, or the share is invalid.
    """
    if isinstance(text, str) and text.partition("/")[0] == "c4":
        if not is_tfds(data_dir):
            raise UserError(f"DATA_DIR is '{data_dir}', but C4 comes from TFDS: 'tfds:FOLDER'.")
        config = text.partition("/")[2] or "en"
        folder = (data_dir or "").partition(":")[2] or None
        train, validation = (
            c4_text(split, config=config, data_dir=folder) for split in ("train", "validation")
        )
        return Corpus(train=train, held_out=validation, shuffled=True)
    files = [text] if isinstance(text, str) else list(text)
    if not files:
        raise UserError("CORPUS is empty; expected a text file, a list of them, or 'c4'.")
    train, kept_back = held_out(text_files(*files, drop_markup=drop_markup), held_out_share)
    return Corpus(train=train, held_out=kept_back, shuffled=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """The objective and its batches.

    Attributes:
      name: one of `data.pretraining.OBJECTIVES`.
      feature_lengths: maximum inputs and targets, in tokens including end of sequence.
      batch_size: pieces of text per step.
      held_out_batches: number of batches an evaluation scores.
      model_name: the model name recorded by prompts; None is the run folder's name.

    Raises:
      UserError: the objective is unknown, or a value is too low.
    """

    name: str
    feature_lengths: Mapping[str, Any]
    batch_size: int
    held_out_batches: int = 16
    model_name: str | None = None

    def __post_init__(self) -> None:
        at_least(1, {"BATCH_SIZE": self.batch_size, "held_out_batches": self.held_out_batches})
        assert self.piece_length > 1

    @property
    def lengths(self) -> Mapping[str, int]:
        """The validated lengths."""
        return lengths_of(self.feature_lengths)

    @property
    def piece_length(self) -> int:
        """Number of tokens of text per example."""
        return piece_lengths(self.name, self.lengths["inputs"], self.lengths["targets"])[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingJob:
    """A pre-training run with its data and initial weights in memory.

    Attributes:
      base: the model with its initial weights.
      stream: training batches.
      held_out: batches of held-out text.
      tokens: number of tokens available for training.
      contents: hashes of contents that settings refer to by path, as in `Job`.
    """

    base: Base
    training: Training
    objective: Objective
    stream: PretrainingStream
    held_out: PretrainingStream
    tokens: int
    contents: Mapping[str, Any]

    @property
    def model_name(self) -> str:
        """The model name for prompts to record: those of the old weights don't fit the new ones."""
        return self.objective.model_name or self.training.path.name


def prepare(
    training: Training,
    objective: Objective,
    text: Corpus,
    layout: Layout,
    vocabulary: Vocabulary,
    first_weights: Callable[[], tuple[T5Config, Compute, Params]],
    part: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> PretrainingJob:
    """Reads the text, and loads or creates the initial weights.

    Args:
      training: the training options.
      objective: the objective.
      text: the corpus.
      layout: the model's sharding.
      vocabulary: the model's vocabulary.
      first_weights: loads or creates the initial weights.
      part: `part(name)` is a context manager entered while loading "data" and "weights".

    Raises:
      UserError: something can't be read, or the text is too short.
    """
    check_batch(objective.batch_size, layout.mesh)
    a_step = objective.batch_size * objective.piece_length
    most = training.options.train_steps * a_step if text.shuffled else sys.maxsize
    with part("data"):
        ids = tokenized_text(text.train, vocabulary, max_tokens=most)
    stream = _stream(ids, vocabulary, objective, training.options.seed)
    try:
        kept_ids = tokenized_text(
            text.held_out, vocabulary, max_tokens=objective.held_out_batches * a_step
        )
        held_out_stream = _stream(kept_ids, vocabulary, objective, seed=0)
    except UserError as error:
        raise UserError(
            f"Too little text is held out for evaluation; raise corpus.held_out_share. ({error})"
        ) from error
    with part("weights"):
        config, compute, params = first_weights()
    if compute.quantization:
        raise UserError(
            f"frozen_model.quantization is {compute.quantization!r}, but quantized weights can't "
            "be trained: unset it."
        )
    frozen_base.check_vocabulary(vocabulary, config)
    # All weights are trained, so they are replicated for any layout.
    base = Base(config=config, compute=compute, params=params, vocabulary=vocabulary, layout=layout)
    base = dataclasses.replace(base, params=replicate(params, base.mesh))
    base = base.with_remat_decided(
        params,
        rows=objective.batch_size,
        source=objective.lengths["inputs"],
        target=objective.lengths["targets"],
    )
    return PretrainingJob(
        base=base,
        training=training,
        objective=objective,
        stream=stream,
        held_out=held_out_stream,
        tokens=len(ids),
        contents={
            "contents of the vocabulary": vocabulary.hash[:16],
            "contents of the text": _text_hash(ids, kept_ids),
            "contents of the first weights": frozen_base.weights_hash(base.params),
            IN_USE: base.in_use,
        },
    )


def _stream(
    ids: np.ndarray, vocabulary: Vocabulary, task: Objective, seed: int
) -> PretrainingStream:
    return PretrainingStream(
        ids,
        vocabulary,
        objective=task.name,  # pyright: ignore[reportArgumentType]  it is validated there
        batch_size=task.batch_size,
        seed=seed,
        input_length=task.lengths["inputs"],
        target_length=task.lengths["targets"],
    )


def _text_hash(*parts: np.ndarray) -> str:
    """Returns a hash of each text's length and of up to four million of its tokens."""
    digest = hashlib.sha256()
    for ids in parts:
        digest.update(f"{len(ids)} {ids.dtype}".encode())
        for start in range(0, len(ids), max(_HASHED_TOKENS, len(ids) // _HASHED_BLOCKS)):
            digest.update(ids[start : start + _HASHED_TOKENS].tobytes())
    return digest.hexdigest()[:16]


def held_out_scorer(job: PretrainingJob) -> Callable[[Params], Evaluation]:
    """Returns a function from weights to their loss, in nats per token, on the held-out text.

    All evaluations use the same batches. The loss is the cross-entropy only, without dropout. The
    score is the negative loss.
    """
    base = job.base
    model = model_of(base.config, dataclasses.replace(base.compute, dropout_rate=0.0))
    loss_fn = jax.jit(model_loss_fn(model, LossOptions()))
    number = min(job.objective.held_out_batches, math.ceil(job.held_out.steps_per_epoch))
    unused_key = jax.random.key(0)

    def score(params: Params) -> Evaluation:
        sums = np.zeros(2)
        for step in range(number):
            batch = shard_batch(job.held_out.batch(step), base.mesh)
            sums += jax.device_get(loss_fn(params, None, batch, unused_key))
        loss = float(sums[0] / sums[1])
        return Evaluation(metrics={"loss": loss}, score=-loss)

    return score
