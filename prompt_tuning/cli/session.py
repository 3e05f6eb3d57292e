"""What the commands share: from the configuration to the model, the data and the prompt.

How predictions are made and scored is in `scoring.py`.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import jax
import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis.neighbors import (
    Neighbor,
    cleaned,
    format_neighbors,
    nearest_neighbors,
)
from prompt_tuning.checkpoints.adapter_files import Adapter, best_file, check_fits, load_adapter
from prompt_tuning.checkpoints.prompt_files import PromptMetadata
from prompt_tuning.cli import (
    configurables,
    gin_config,
    layer_methods,  # noqa: F401 - registered with gin
    prompt_methods,  # noqa: F401 - registered with gin
    run_task,
)
from prompt_tuning.cli.compilation_cache import compilation_cache
from prompt_tuning.cli.configurables import Base, Data, Prediction, Training
from prompt_tuning.cli.say import say
from prompt_tuning.cli.splits import load_splits
from prompt_tuning.data.batching import BatchStream
from prompt_tuning.data.findings import findings
from prompt_tuning.data.mixtures import proportional_rates
from prompt_tuning.data.token_batches import TokenBatchStream
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.evaluator import Inject
from prompt_tuning.files import writing
from prompt_tuning.host_memory import return_memory_after_compiling
from prompt_tuning.methods.base import Method, Trained, bind
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import Params
from prompt_tuning.parallel.mesh import DATA_AXIS, check_batch, replicate, values_at
from prompt_tuning.parallel.processes import is_first
from prompt_tuning.training.keys import stream_key

CONFIG = "config.gin"

# A T5 table is longer than its vocabulary by what rounding up to a multiple of 128 adds; more
# than this much longer, it is another vocabulary's.
_UNUSED_ROWS = 1024


def say_once(text: str) -> None:
    """Prints it on the first of several processes alone."""
    if is_first():
        say(text)


def load_config(
    args: argparse.Namespace, *, run: str | None = None, defaults: Sequence[str] = ()
) -> None:
    """Reads the configuration: defaults, that of a run folder, then the gin files and flags.

    Of a run folder the task is as it was trained on; see `run_task.py`.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    files = list(args.gin_file)
    recorded, missing = None, []
    if run is not None:
        config = Path(run) / CONFIG
        if not config.is_file():
            raise UserError(f"{run} is not a run folder: it has no {CONFIG}.")
        files.insert(0, str(config))
        recorded = run_task.read(run)
        missing = gin_config.missing_modules(config) if recorded else []
    if not files:
        raise UserError(
            "No configuration: give --gin_file=..., such as those that the top of "
            f"{gin_config.shipped_configs() / 'runs'}/*.gin names."
        )
    gin_config.load(
        [*defaults, *files],
        args.gin_bindings,
        args.gin_search_paths,
        lenient=files[:1] if missing else (),
    )
    if run is not None and recorded:
        run_task.apply(run, recorded, missing)
    compilation_cache()
    return_memory_after_compiling()


def open_run(run: str | Path) -> tuple[Base, Data]:
    """Returns the frozen model and the data of a run folder, as its own configuration has them.

    Raises:
      UserError: it isn't a run folder, or anything that `load_base` raises.
    """
    nothing = argparse.Namespace(gin_file=[], gin_bindings=[], gin_search_paths="")
    load_config(nothing, run=str(run))
    data = configurables.data()
    return load_base(data), data


def load_base(data: Data) -> Base:
    """Loads the frozen model, each part onto the devices that hold it, and its vocabulary.

    Raises:
      UserError: either can't be read, they don't belong together, or the data's batches can't be
        shared out among the devices.
    """
    layout = configurables.layout()
    check_batch(data.batch_size, layout.mesh)
    vocabulary = configurables.vocabulary()
    # On a single device arrays go where JAX puts them anyhow.
    sharding_of = layout.sharding_of if layout.mesh.size > 1 else None
    config, params = configurables.frozen_model(sharding_of=sharding_of)
    check_vocabulary(vocabulary, config)
    for line in layout.unsplit(params) if is_first() else ():
        say(line)
    return Base(config=config, params=params, vocabulary=vocabulary, layout=layout)


def check_vocabulary(vocabulary: Vocabulary, config: T5Config) -> None:
    """Checks by sizes and special ids that a vocabulary and a model belong together."""
    unused = config.vocab_size - len(vocabulary)
    if not 0 <= unused < _UNUSED_ROWS:
        raise UserError(
            f"The vocabulary {vocabulary.path} has {len(vocabulary)} pieces, but the model "
            f"'{config.name}' has {config.vocab_size} embeddings; set VOCABULARY_PATH to the "
            "vocabulary that it was pre-trained with."
        )
    for name in ("pad_id", "eos_id"):
        ours, theirs = getattr(vocabulary, name), getattr(config, name)
        if ours != theirs:
            raise UserError(
                f"The model '{config.name}' has the {name} {theirs}, but it is {ours} in the "
                f"vocabulary {vocabulary.path}: one of the two is another model's, or the model's "
                "configuration is wrong."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A training run as configured, with everything it needs in memory.

    training_splits: of each task, in the order of `data.tasks`.
    development_splits: likewise, what the best prompt is picked on.
    trained: the method's first values, on every device.
    findings: what the data turned out to be, a line each, for the start of a run.
    """

    base: Base
    data: Data
    prediction: Prediction
    training: Training
    training_splits: Sequence[TokenizedSplit]
    development_splits: Sequence[TokenizedSplit]
    stream: BatchStream | TokenBatchStream
    method: Method
    trained: Trained
    findings: Sequence[str] = ()

    @property
    def truncated(self) -> dict[str, dict[str, int]]:
        """How many examples of each split were cut, by feature."""
        splits = [*self.training_splits, *self.development_splits]
        return {f"{split.task} {split.split}": dict(split.truncated) for split in splits}

    @property
    def contents(self) -> dict[str, str]:
        """What stands in the files that the settings only name, as short hashes.

        A run is not gone on with on other data, weights or vocabulary at the same paths.
        """
        return {
            "contents of the vocabulary": self.base.vocabulary.hash[:16],
            "contents of the data": self.data_hash,
            "contents of the frozen weights": weights_hash(self.base.params),
        }

    @property
    def data_hash(self) -> str:
        """A short hash of the tokens trained on and scored."""
        tokens = hashlib.sha256()
        for split in [*self.training_splits, *self.development_splits]:
            for array in (split.inputs.values, split.inputs.offsets, split.targets.values):
                tokens.update(array.tobytes())
            tokens.update(split.metadata_json)
        return tokens.hexdigest()[:16]


Load = Callable[[Base, Data, str], list[TokenizedSplit]]
"""Gives a split of every task, by its name."""


def prepare(
    base: Base | None = None,
    load: Load | None = None,
    part: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Job:
    """Loads the model and the data, and makes the method's first values.

    `base` and `load` are for several jobs on one model, which share what they have in common.
    `part(name)` is entered around the loading of the "weights" and of the "data".
    """
    training = configurables.train()
    data = configurables.data()
    prediction = configurables.predict(data)
    with part("weights"):
        base = base or load_base(data)
    check_batch(data.batch_size, base.mesh, training.options.accumulation_steps)
    load = load or load_splits
    method = training.make_method(base)
    seed = training.options.seed
    with part("data"):
        splits = load(base, data, "train")
        development_splits = load(base, data, prediction.split)
    rates = data.rates or proportional_rates([len(split) for split in splits])
    # Each device has as many rows of each microbatch as the others.
    parts = base.mesh.shape[DATA_AXIS] * training.options.accumulation_steps
    budget = data.token_budget(parts)
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
    variables = method.init(stream_key(seed, "prompt_init"), stream.batch(0))
    method, trained = bind(method, variables)
    return Job(
        base=base,
        data=data,
        prediction=prediction,
        training=training,
        training_splits=splits,
        development_splits=development_splits,
        stream=stream,
        method=method,
        trained=_lay_out(trained, base),
        findings=findings(data.tasks, splits, development_splits, data.data_dir),
    )


def _lay_out(trained: Trained, base: Base) -> Trained:
    """Puts what is trained on the devices: whole on each, but weights as the frozen ones lie."""
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


def weights_hash(params: Params) -> str:
    """Returns a hash of every parameter's shape and of up to a thousand values across it.

    Enough to tell two models apart, without reading tens of gigabytes back from a device. It is
    the same however the parameters lie on devices; all processes have to ask for it.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        places = np.arange(0, leaf.size, -(-leaf.size // 1000))
        digest.update(f"{leaf.shape} {leaf.dtype}".encode())
        digest.update(values_at(leaf, np.unravel_index(places, leaf.shape)).tobytes())
    return digest.hexdigest()[:16]


def prompt_path(run: str | None, given: str | None) -> str:
    """Returns the file to use: the one given, else the run's best, else PROMPT_FILE.

    Raises:
      UserError: none of them is there.
    """
    if given is not None:
        return given
    if run is not None:
        best = best_file(run)
        if best is None:
            raise UserError(
                f"{run} has no best prompt (prompt_best.npy or .safetensors): its training hasn't "
                "got so far. The command that began it goes on with it."
            )
        return str(best)
    path = gin_config.macro("PROMPT_FILE")
    if path is None:
        raise UserError(
            "No prompt: give a run folder, --prompt FILE, or --gin.PROMPT_FILE=FILE "
            "(docs/adapters.md lists the forms); evaluate and infer take --no_prompt too."
        )
    return path


def chosen_prompt(args: argparse.Namespace) -> str | None:
    """Returns what `prompt_path` does; None: the model is to answer alone.

    Raises:
      UserError: as `prompt_path`, or a prompt is given beside `--no_prompt`.
    """
    if args.no_prompt and args.prompt is not None:
        raise UserError("Give either --prompt or --no_prompt, not both.")
    given = args.prompt is not None or args.run is not None
    if args.no_prompt or (not given and ("PROMPT_FILE", "None") in args.gin_bindings):
        return None
    return prompt_path(args.run, args.prompt)


@contextlib.contextmanager
def new_file(path: str) -> Iterator[IO[str]]:
    """Opens a file to write results to; what is there already is never written over.

    Devices and pipes, such as /dev/stdout, may be named too.

    Raises:
      UserError: it exists, or can't be written.
    """
    is_stream = Path(path).exists() and not Path(path).is_file()
    with (
        writing(Path(path), fix="Give another path."),
        open(path, "w" if is_stream else "x", encoding="utf-8") as file,
    ):
        yield file


def load_adapter_for(base: Base, path: str) -> Adapter:
    """Reads a prompt, or what another method has trained, and checks that it fits this model.

    Raises:
      UserError: it can't be read, or is of another model or vocabulary.
    """
    adapter = load_adapter(
        path,
        embed_dim=base.config.embed_dim,
        model=base.config.name,
        vocabulary_hash=base.vocabulary.hash,
        config=base.config,
    )
    if not adapter.is_prompt:
        check_fits(base.config, adapter, path)
    return adapter


def open_prompt(base: Base, data: Data, path: str | None) -> tuple[Inject, PromptMetadata]:
    """Returns what a prompt's file injects, and what it tells; None injects nothing.

    Raises:
      UserError: as `load_adapter_for` and `check_target_form`.
    """
    if path is None:
        return lambda batch: Injection(), PromptMetadata()
    adapter = load_adapter_for(base, path)
    check_target_form(data, adapter, path)
    return adapter.inject, adapter.metadata


def check_target_form(data: Data, adapter: Adapter, path: str) -> None:
    """Checks that targets are written as they were when a prompt was trained, where it tells.

    Raises:
      UserError: it was trained with a sentinel before the targets, or without, unlike these.
    """
    trained = adapter.metadata.target_sentinel
    if trained in (None, data.target_sentinel):
        return
    raise UserError(
        f"{path} was trained {'with' if trained else 'without'} a sentinel before the targets; "
        f"set --gin.data.target_sentinel={trained}."
    )


def inject_folded(method: Method, trained: Trained) -> Inject:
    """Returns the injection as whoever loads the saved numbers will compute it."""
    folded, numbers = method.fold(trained)
    return functools.partial(folded.apply, numbers)


def neighbors_of(
    base: Base,
    prompt: Float32[np.ndarray, "prompt embed"],
    *,
    k: int,
    metric: str = "cosine",
    words: bool = False,
) -> list[list[Neighbor]]:
    """Returns the k nearest pieces of each position of the prompt, with `words` as text only."""
    piece = base.vocabulary.piece
    return nearest_neighbors(
        prompt,
        base.embedding,
        (lambda i: cleaned(piece(i))) if words else piece,
        k=k,
        metric=metric,
        num_pieces=base.vocabulary.num_pieces,
    )


def neighbors_text(
    base: Base,
    prompt: Float32[np.ndarray, "prompt embed"],
    *,
    k: int,
) -> str:
    """Returns a line for each position of the prompt with its k nearest pieces by cosine."""
    return format_neighbors(neighbors_of(base, prompt, k=k))
