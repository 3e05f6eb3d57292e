"""Training from Python; `prompt_tuning/__init__.py` names what is public, docs/api.md shows it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax

from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.registry import describe, method_name
from prompt_tuning.recipes import identity, options, task_file
from prompt_tuning.recipes import train as training
from prompt_tuning.recipes.choices import adafactor, settings_of
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference, macros, with_macros
from prompt_tuning.recipes.job import Job, prepare
from prompt_tuning.recipes.paths import expanded, run_folder
from prompt_tuning.recipes.rows import Rows, given_task
from prompt_tuning.recipes.run import Run
from prompt_tuning.recipes.say import say
from prompt_tuning.training.run_folder import RunFolder

_HEAD = "# Written by prompt_tuning.train; the commands read it: prompt-tuning evaluate FOLDER\n\n"


def load(
    model: str | Path,
    vocabulary: str | Path | None = None,
    *,
    name: str | None = None,
    param_dtype: str | None = None,
    compute_dtype: str = "float32",
    matmul_dtype: str = "",
    quantization: str = "",
    model_parallel: int = 1,
    data_parallel: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Base:
    """Loads a frozen model and its vocabulary.

    Args:
      model: a shipped model's name ("tinyworld_small"), a model's on the Hugging Face hub
        ("google/t5-small-lm-adapt"), or the path, also in a bucket, of a Hugging Face folder, a T5X
        checkpoint, or a file or folder of this package.
      vocabulary: a SentencePiece file, a folder that holds one, "tinyworld" or "byt5"; None looks
        where the model is.
      name: what prompts remember of the model; None is its architecture's.
      param_dtype: "float32" or "bfloat16" to cast the weights; None keeps what was saved.
      compute_dtype: of activations.
      matmul_dtype: what the inputs of matrix products are rounded to; "" as the activations,
        "auto" is bfloat16 where the hardware is faster in it.
      quantization: "int8" or "nf4" to hold kernels in 8 or 4 bits.
      model_parallel: devices that share one copy of the model.
      data_parallel: groups of such devices; None is as many as there are.
      settings: any other of `frozen_model`, `vocabulary` and `layout` in docs/parameters.md, such
        as {"frozen_model.remat": True}.

    Raises:
      UserError: the model or the vocabulary can't be read, or they don't belong together.
    """
    given = {
        "frozen_model.checkpoint": str(model),
        "frozen_model.name": name,
        "frozen_model.param_dtype": param_dtype,
        "frozen_model.compute_dtype": compute_dtype,
        "frozen_model.matmul_dtype": matmul_dtype,
        "frozen_model.quantization": quantization,
        "vocabulary.checkpoint": str(model),
        "vocabulary.path": None if vocabulary is None else str(vocabulary),
        "layout.model_parallel": model_parallel,
        "layout.data_parallel": data_parallel,
    }
    options.check_names(settings or {})
    return options.load_base(expanded({**given, **(settings or {})}))


def train(
    base: Base,
    method: Callable[[Base], Method],
    task: str | Task | Mixture | Rows,
    *,
    folder: str | Path,
    inputs: str | None = None,
    targets: str | None = None,
    validation: Rows | None = None,
    test: Rows | None = None,
    held_out: float = 0.1,
    labels: Sequence[str] | None = None,
    metric: str | Sequence[str] | None = None,
    steps: int = 30_000,
    batch_size: int = 32,
    learning_rate: float = 0.3,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    eval_every: int = 1000,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    patience: int | None = None,
    lengths: Mapping[str, int] | None = None,
    data_dir: str | Path | None = None,
    predict: str = "greedy",
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Run:
    """Trains a method on a task, into a run folder, and returns the run with its best prompt.

    Called again with the same arguments, it resumes an interrupted run and ends with the very same
    prompt. The defaults are the paper's. The same settings give the same prompt, bit for bit, as
    `prompt-tuning train`, and the commands work on the folder.

    Args:
      base: the frozen model, of `load`.
      method: what is trained, such as `soft_prompt(length=20, initializer=...)`.
      task: a task's or a mixture's name (`prompt-tuning tasks` lists them), a `Task`, or with the
        two templates your own rows: a file (CSV, TSV, jsonl, Parquet) or data set, a list of dicts,
        or a pandas frame. Rows in memory are copied into the folder.
      folder: of the run.
      inputs: a template of what the model reads of a row, such as "review: {text}".
      targets: a template of what it is to answer, such as "{label}".
      validation: the rows to choose the best step on; None holds out a share of the training rows.
      test: rows that `Run.evaluate("test")` scores.
      held_out: that share, of rows chosen by a hash of each.
      labels: the label words of rows; None finds them, and [] means free text.
      metric: of rows, such as "accuracy"; see docs/data.md.
      steps: updates to make.
      batch_size: in examples.
      learning_rate: of Adafactor, where no optimizer is given.
      optimizer: such as `adamw(1e-3)`, or any of optax's; None is the paper's Adafactor.
      seed: of the order of the data, the first values and dropout.
      eval_every: steps between evaluations on the development split.
      checkpoint_every: steps between checkpoints.
      log_every: steps between rows of losses.
      patience: evaluations without a better score after which training stops; None: never.
      lengths: of "inputs" and "targets" in tokens with end of sequence; None is the task's own.
      data_dir: of a task whose files are the user's.
      predict: "greedy", "beam", "sample", or "rank" over the task's labels.
      settings: any other of `data`, `predict` and `train` in docs/parameters.md, such as
        {"train.accumulation_steps": 4}.
      overwrite: remove the run that the folder holds and start over.

    Raises:
      UserError: an argument is out of range, the data can't be read, the folder holds another run,
        or training diverges.
    """
    where = run_folder(expanded(str(folder)), "folder")
    given = given_task(
        task,
        where,
        inputs=inputs,
        targets=targets,
        validation=validation,
        test=test,
        held_out=held_out,
        labels=labels,
        metric=metric,
        overwrite=overwrite,
    )
    optimizer = adafactor(learning_rate) if optimizer is None else optimizer
    options.check_names(settings or {})
    values = {
        **base.settings,
        **settings_of("data.mixture_or_task", given),
        "data.batch_size": batch_size,
        **({} if lengths is None else {"data.feature_lengths": dict(lengths)}),
        "data.data_dir": None if data_dir is None else str(data_dir),
        "predict.method": predict,
        "predict.split": "validation",
        "train.folder": str(where),
        **settings_of("train.method", method),
        **settings_of("train.optimizer", optimizer),
        "train.train_steps": steps,
        "train.seed": seed,
        "train.eval_every": eval_every,
        "train.checkpoint_every": checkpoint_every,
        "train.log_every": log_every,
        "train.patience": patience,
        **(settings or {}),
    }
    data = options.data_of(values, given)
    prediction = options.prediction_of(values, data)
    job = prepare(base, data, prediction, options.training_of(values, method, optimizer))
    opened = _open_folder(job, values, overwrite=overwrite)
    training.train(job, opened)
    return Run(folder=where, base=base, data=data, prediction=prediction)


def _open_folder(job: Job, values: Mapping[str, Any], *, overwrite: bool) -> RunFolder:
    """Makes the run folder, or goes back to that of the same settings and the same contents."""
    texts = with_macros({name: _written(name, value, job) for name, value in values.items()})
    config = {name: text for name, text in texts.items() if not text.startswith(_NOT_IN_GIN)}
    contents = {**identity.file_contents(texts, options.SIGNATURES.mark), **job.contents}
    folder = RunFolder.open(
        job.training.path,
        settings={**_identity(texts), **contents},
        config_text=_HEAD + "".join(f"{name} = {text}\n" for name, text in config.items()),
        compare=lambda found, given: identity.compare(
            found,
            given,
            mark=options.SIGNATURES.mark,
            default_of=options.SIGNATURES.default_of,
        ),
        train_steps=job.training.options.train_steps,
        overwrite=overwrite,
    )
    paths = {
        macros()[name]: place for name in _PATHS if (place := task_file.place(values.get(name)))
    }
    folder.write_json(task_file.FILE, task_file.described(job, paths=paths, modules={}))
    for note in folder.notes:
        say(note)
    return folder


_PATHS = (
    "frozen_model.checkpoint",
    "vocabulary.path",
    "data.data_dir",
    "user_files.train_file",
    "user_files.validation_file",
    "user_files.test_file",
)
"""The settings that name the user's files and folders."""

_NOT_IN_GIN = "<"
"""What the text of a value begins with that only Python has."""


def _written(name: str, value: Any, job: Job) -> Any:
    """Returns a setting's value as it is recorded; what only Python has is told by its text."""
    if isinstance(value, Task | Mixture):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if name == "train.method" and not isinstance(value, Reference):
        return Reference(f"{_NOT_IN_GIN}{method_name(job.method)} {describe(job.method)}>")
    if callable(value) or isinstance(value, optax.GradientTransformation):
        return Reference(f"{_NOT_IN_GIN}{type(value).__name__} of Python>")
    return value


def _identity(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings that a result depends on, and the macros that fill those."""
    free = {name for name in texts if "." in name and options.SIGNATURES.mark(name).free}
    kept = {name: text for name, text in texts.items() if name not in free}
    used = {text.removeprefix("%") for name, text in kept.items() if "." in name}
    return {name: text for name, text in kept.items() if "." in name or name in used}
