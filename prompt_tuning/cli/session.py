"""What `train`, `evaluate` and `infer` share: from the configuration to models, data and scores."""

import argparse
import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis.neighbors import format_neighbors, nearest_neighbors
from prompt_tuning.checkpoints.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.cli import configurables, gin_config
from prompt_tuning.cli.configurables import Base, Data, Prediction, Training
from prompt_tuning.data.batching import BatchStream, eval_batches
from prompt_tuning.data.mixtures import proportional_rates
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.tokenized import TokenizedSplit, tokenized
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.evaluator import (
    IndexedBatch,
    Inject,
    Predictor,
    decoding_predictor,
    evaluate,
    rank_predictor,
)
from prompt_tuning.methods.base import Method, Trained
from prompt_tuning.methods.prompt import SoftPrompt, soft_prompt_variables
from prompt_tuning.parallel.mesh import data_mesh, replicate, shard_batch
from prompt_tuning.training.keys import stream_key
from prompt_tuning.training.loop import Evaluation

BEST_PROMPT = "prompt_best"
CONFIG = "config.gin"

# A T5 table is longer than its vocabulary by what rounding up to a multiple of 128 adds; more
# than this much longer, it is another vocabulary's.
_UNUSED_ROWS = 1024


def say(text: str) -> None:
    """Prints progress on stderr, where the bar is; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def load_config(args: argparse.Namespace, *, run: str | None = None) -> None:
    """Reads the configuration: that of a run folder first, then the gin files and flags."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    files = list(args.gin_file)
    if run is not None:
        config = Path(run) / CONFIG
        if not config.is_file():
            raise UserError(f"{run} is not a run folder: it has no {CONFIG}.")
        files.insert(0, str(config))
    if not files:
        raise UserError(
            "No configuration: give --gin_file=..., such as those that the top of "
            f"{gin_config.shipped_configs() / 'runs'}/*.gin names."
        )
    gin_config.load(files, args.gin_bindings, args.gin_search_paths)


def load_base(data: Data) -> Base:
    """Loads the frozen model, onto every device, and its vocabulary.

    Raises:
      UserError: either can't be read, they don't belong together, or the data's batches can't be
        shared out among the devices.
    """
    mesh = data_mesh(data.batch_size)
    vocabulary = configurables.vocabulary()
    config, params = configurables.frozen_model()
    unused = config.vocab_size - len(vocabulary)
    if not 0 <= unused < _UNUSED_ROWS:
        raise UserError(
            f"The vocabulary {vocabulary.path} has {len(vocabulary)} pieces, but the model "
            f"'{config.name}' has {config.vocab_size} embeddings; set VOCABULARY_PATH to the "
            "vocabulary that it was pre-trained with."
        )
    return Base(config=config, params=replicate(params, mesh), vocabulary=vocabulary, mesh=mesh)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A training run as configured, with everything it needs in memory.

    trained: the method's first values, on every device.
    """

    base: Base
    data: Data
    prediction: Prediction
    training: Training
    stream: BatchStream
    method: Method
    trained: Trained


def prepare() -> Job:
    """Loads the model and the training data, and makes the method's first values."""
    training = configurables.train()
    data = configurables.data()
    prediction = configurables.predict(data)
    base = load_base(data)
    method = training.method(base)
    seed = training.options.seed
    splits = [load_split(base, data, task, "train") for task in data.tasks]
    stream = BatchStream(
        splits,
        batch_size=data.batch_size,
        seed=seed,
        rates=proportional_rates([len(split) for split in splits]),
    )
    trained = method.init(stream_key(seed, "prompt_init"), stream.batch(0))
    return Job(
        base=base,
        data=data,
        prediction=prediction,
        training=training,
        stream=stream,
        method=method,
        trained=replicate(trained, base.mesh),
    )


def load_split(base: Base, data: Data, task: Task, split: str) -> TokenizedSplit:
    """Returns a split as token ids and says how many of its examples were cut."""
    found = tokenized(
        task, split, vocabulary=base.vocabulary, lengths=data.lengths, data_dir=data.data_dir
    )
    for feature, count in found.truncated.items():
        if count:
            say(
                f"{task.name} {split}: {count} of {len(found)} examples have {feature} longer "
                f"than {data.lengths[feature]} tokens and were cut (TASK_FEATURE_LENGTHS)."
            )
    return found


def predictor_for(base: Base, task: Task, prediction: Prediction) -> Predictor:
    """Returns the way of answering that the configuration asks for."""
    if not prediction.rank:
        return decoding_predictor(base.model, prediction.decoding, base.vocabulary.decode)
    labels = task.labels or ()
    ids = base.vocabulary.encode_labels(labels) if labels else np.zeros((0, 1), np.int32)
    return rank_predictor(base.model, ids, labels)


Score = Callable[[Inject], Evaluation]


def scorer(base: Base, data: Data, prediction: Prediction, split: str) -> Score:
    """Returns a function from an injection to its scores on a split of every task.

    A mixture's metrics carry the task's name, and its score is the mean of its tasks' scores.
    """
    parts = [
        (task, load_split(base, data, task, split), predictor_for(base, task, prediction))
        for task in data.tasks
    ]

    def score(inject: Inject) -> Evaluation:
        metrics: dict[str, float] = {}
        scores, rows = [], []
        for task, examples, predictor in parts:
            found, predictions = evaluate(
                predictor,
                base.params,
                inject,
                _on_devices(eval_batches(examples, data.batch_size), base),
                functools.partial(task.evaluate, examples.metadata),
                seed=prediction.seed,
            )
            scores.append(task.score(found))
            prefix = f"{task.name}/" if len(parts) > 1 else ""
            metrics |= {f"{prefix}{name}": value for name, value in found.items()}
            rows += _prediction_rows(task, examples.metadata, predictions)
        return Evaluation(metrics=metrics, score=sum(scores) / len(scores), predictions=rows)

    return score


def _on_devices(batches: Iterable[IndexedBatch], base: Base) -> Iterator[IndexedBatch]:
    for batch, indices in batches:
        yield shard_batch(batch, base.mesh), indices


def _prediction_rows(
    task: Task, examples: Sequence[Mapping[str, Any]], predictions: Sequence[str]
) -> list[dict[str, Any]]:
    return [
        {"task": task.name, **example, "prediction": prediction}
        for example, prediction in zip(examples, predictions, strict=True)
    ]


def prompt_path(run: str | None, given: str | None) -> str:
    """Returns the prompt file to use: the one given, else the run's best, else PROMPT_FILE.

    Raises:
      UserError: none of them is there.
    """
    if given is not None:
        return given
    if run is not None:
        best = Path(run) / f"{BEST_PROMPT}.safetensors"
        if not best.is_file():
            raise UserError(f"{run} has no {best.name} yet: its run hasn't been evaluated.")
        return str(best)
    path = gin_config.macro("PROMPT_FILE")
    if path is None:
        raise UserError(
            "No prompt: give a run folder, --prompt FILE, or --gin.PROMPT_FILE=FILE "
            "(.npy or .safetensors)."
        )
    return path


def load_prompt_for(
    base: Base, path: str
) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
    """Reads a prompt file and checks that it belongs to this model and vocabulary."""
    return load_prompt(
        path,
        (None, base.config.embed_dim),
        model=base.config.name,
        vocabulary_hash=base.vocabulary.hash,
    )


def inject_prompt(base: Base, prompt: Float32[np.ndarray, "prompt embed"]) -> Inject:
    """Returns the injection of a prompt from a file, whatever its length."""
    method = SoftPrompt(length=prompt.shape[0], embed_dim=base.config.embed_dim)
    # Flax types what `apply` returns only loosely.
    return functools.partial(cast(Method, method).apply, soft_prompt_variables(prompt))


def neighbors_text(
    base: Base, prompt: Float32[np.ndarray, "prompt embed"], *, k: int, metric: str = "cosine"
) -> str:
    """Returns a line for each position of the prompt with its k nearest pieces."""
    found = nearest_neighbors(
        prompt,
        base.embedding,
        base.vocabulary.piece,
        k=k,
        metric=metric,
        num_pieces=len(base.vocabulary) - base.vocabulary.extra_ids,
    )
    return format_neighbors(found)
