"""The Python API, exported by `prompt_tuning/__init__.py` and documented in docs/api.md."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optax
from jaxtyping import Float

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter
from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.methods.base import Method
from prompt_tuning.models.injection import AnyArray, Injection
from prompt_tuning.recipes import options, prompts, scoring
from prompt_tuning.recipes.batches import (
    Batches,
    BatchSource,
    GivenBatch,
    Score,
    hash_of_batch,
    loss_of_batches,
    prepare_batches,
)
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference
from prompt_tuning.recipes.job import Job, prepare
from prompt_tuning.recipes.paths import expanded, run_folder
from prompt_tuning.recipes.population import best_first, write_results
from prompt_tuning.recipes.rows import Rows, given_task
from prompt_tuning.recipes.run import Run
from prompt_tuning.recipes.run_block import run_facts, start_block
from prompt_tuning.recipes.run_spec import (
    RunSpec,
    chosen,
    config_text,
    open_folder,
    run_spec,
    task_values,
)
from prompt_tuning.recipes.say import say, shown
from prompt_tuning.recipes.signatures import mark
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.recipes.train import MemberJob, train_job, train_jobs
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.run_folder import MEMBERS


def load(
    model: str | FilePath,
    vocabulary: str | FilePath | None = None,
    *,
    name: str | None = None,
    param_dtype: str | None = "auto",
    compute_dtype: str = "auto",
    matmul_dtype: str = "",
    quantization: str = "",
    model_parallel: int = 1,
    data_parallel: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Base:
    """Loads a frozen model and its vocabulary.

    Args:
      model: the name of a shipped model ("tinyworld_small") or of one on the Hugging Face Hub
        ("google/t5-small-lm-adapt"), or the path, possibly in a bucket, of a Hugging Face folder, a
        T5X checkpoint, or a file or folder of this package.
      vocabulary: a SentencePiece file, a folder that contains one, "tinyworld" or "byt5"; None
        searches the model's folder.
      name: the model name recorded by prompts; None is the architecture's name.
      param_dtype: "float32" or "bfloat16" to cast the weights; None keeps the saved dtype; "auto"
        is bfloat16 on accelerators and the saved dtype on a CPU.
      compute_dtype: dtype of activations; "auto" is bfloat16 on accelerators, float32 on a CPU.
      matmul_dtype: dtype of the inputs of matrix products; "" is `compute_dtype`, "auto" is
        bfloat16 if the hardware is faster with it.
      quantization: "int8" or "nf4" to store kernels in 8 or 4 bits.
      model_parallel: devices that share one copy of the model.
      data_parallel: groups of such devices; None uses all devices.
      settings: any other `frozen_model`, `vocabulary` or `layout` parameters in docs/parameters.md,
        such as {"frozen_model.remat": True}.

    Raises:
      UserError: the model or the vocabulary can't be read, or they don't match.
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
    folder: str | FilePath,
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
    data_dir: str | FilePath | None = None,
    predict: str = "greedy",
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a method on a task, in a run folder, and returns the run with its best adapter.

    Called again with the same arguments, it resumes an interrupted run exactly. The defaults are
    the paper's. The result is bit-identical to that of `prompt-tuning train` with the same
    settings; all commands accept the folder.

    Args:
      base: the frozen model, of `load`.
      method: the method to train, such as `soft_prompt(length=20, initializer=...)`.
      task: the name of a task or mixture (`prompt-tuning tasks` lists them), a `Task`, or, with
        both templates, your own rows: a file (CSV, TSV, jsonl, Parquet) or data set, a list of
        dicts, or a pandas data frame. Rows in memory are copied into the folder.
      folder: the run folder.
      inputs: template of the model's input for a row, such as "review: {text}".
      targets: template of the target, such as "{label}".
      validation: rows for selecting the best step; None holds out a share of the training rows.
      test: rows for `Run.evaluate("test")`.
      held_out: that share; rows are selected by their hashes.
      labels: the label words of rows; None infers them, and [] means free text.
      metric: metric of rows, such as "accuracy"; see docs/data.md.
      steps: number of updates.
      batch_size: examples per batch.
      learning_rate: Adafactor's learning rate, if no optimizer is given.
      optimizer: such as `adamw(1e-3)`, or any optax optimizer; None is the paper's Adafactor.
      seed: seed of data order, initial values and dropout.
      eval_every: steps between evaluations on the development split.
      checkpoint_every: steps between checkpoints.
      log_every: steps between logged losses.
      patience: stop after this many evaluations without a better score; None never stops early.
      lengths: maximum "inputs" and "targets" in tokens, including end of sequence; None uses the
        task's.
      data_dir: data folder of a task that reads the user's files.
      predict: "greedy", "beam", "sample", or "rank" over the task's labels.
      settings: any other `data`, `predict` or `train` parameters in docs/parameters.md, such as
        {"train.accumulation_steps": 4}.
      overwrite: remove any run in the folder and start over.
      quiet: don't print the start of the run or its progress.

    Raises:
      UserError: an argument is out of range, the data can't be read, the folder contains another
        run, or training diverges.
    """
    arguments = dict(locals())
    with shown(not arguments.pop("quiet")):
        spec = _run_spec(**arguments)
        job = prepare(base, spec.data, spec.prediction, spec.training)
        opened = open_folder(job, spec.values, overwrite=overwrite)
        say(start_block(run_facts(job, **chosen(job, spec.values))))
        train_job(job, opened)
    return _run(job)


def train_many(
    base: Base,
    method: Callable[[Base], Method],
    task: str | Task | Mixture | Rows,
    *,
    folder: str | FilePath,
    members: Mapping[str, Mapping[str, Any]],
    concurrency: int = 16,
    side_by_side: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    **arguments: Any,
) -> dict[str, Run]:
    """Trains several runs together on one copy of the frozen model, otherwise as `train`.

        runs = pt.train_many(base, method, "tinyworld_rte", folder="runs/seeds", steps=100,
                             members={f"seed_{seed}": {"seed": seed} for seed in range(5)})
        pt.ensemble(list(runs.values()))

    Each result equals that of a separate run up to rounding. Called again with the same arguments,
    it resumes. All commands accept the folder, which also contains the best adapter of all runs.

    Args:
      base: the frozen model, of `load`.
      method: the method to train.
      task: as in `train`.
      folder: the folder of all runs, each in `members/NAME`.
      members: per-run arguments of `train`, by the run's name: the task, the seed, the learning
        rate, the steps, the patience, and a method's length and initializer.
      concurrency: number of runs that train at a time.
      side_by_side: make the steps of all runs in one program instead of in turns, which is faster
        if one run leaves the device idle.
      overwrite: remove any runs in the folder and start over.
      quiet: print nothing.
      **arguments: arguments of `train` shared by all runs.

    Returns:
      The runs by name. One that diverged has no score.

    Raises:
      UserError: as `train`, or runs differ in shared settings.
    """
    where = as_path(run_folder(expanded(str(folder)), "folder"))
    if not members:
        raise UserError("members is empty; expected arguments of train by each run's name.")
    of_rows = {name: arguments.pop(name) for name in _OF_ROWS if name in arguments}
    with shown(not quiet):
        task = _given_task(task, where, overwrite=overwrite, **of_rows)
        shared = {"method": method, "task": task, **arguments}
        specs = {
            name: _run_spec(base=base, **{**shared, **own, "folder": where / MEMBERS / name})
            for name, own in members.items()
        }
        _check_members(specs)
        load = _loaded_once()
        at_once = min(concurrency, len(members)) if side_by_side else 1
        jobs = {
            name: prepare(
                base, spec.data, spec.prediction, spec.training, load=load, side_by_side=at_once
            )
            for name, spec in specs.items()
        }
        first = next(iter(members))
        opened = open_folder(jobs[first], specs[first].values, overwrite=overwrite, of_all=where)
        population = [
            MemberJob(
                job=job,
                folder=open_folder(job, specs[name].values),
                name=name,
                facts={"member": {key: str(value) for key, value in members[name].items()}},
            )
            for name, job in jobs.items()
        ]
        facts = run_facts(jobs[first], **chosen(jobs[first], specs[first].values))
        number = f"{facts.batch} for each of {len(jobs)} members, up to {concurrency} at a time"
        say(start_block(dataclasses.replace(facts, batch=number, folder=f"{where}/")))
        results = train_jobs(population, concurrency=concurrency, side_by_side=side_by_side)
        best = best_first(results)[0].name
        config = config_text({**specs[best].values, "train.folder": str(where)}, jobs[best])
        write_results(opened, results, members, config)
    return {name: _run(job) for name, job in jobs.items()}


def train_on_batches(
    base: Base,
    method: Callable[[Base], Method],
    batches: Batches,
    *,
    folder: str | FilePath,
    evaluate: Score | Iterable[GivenBatch] | None = None,
    name: str = "batches",
    steps: int = 30_000,
    learning_rate: float = 0.3,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    eval_every: int = 1000,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    patience: int | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a method on your own batches, in a run folder, and returns the run.

    A batch is a dict of arrays under SeqIO's names: `encoder_input_tokens` [batch, source] and
    `decoder_target_tokens` [batch, target], int, including end of sequence, padded with 0. Optional
    are `decoder_input_tokens` [batch, target], int (default: targets shifted right by one), and
    `decoder_loss_weights` [batch, target], float (default: 1 except for padding). Each new shape is
    compiled.

    An interrupted run resumes exactly if `batches` is a function or a list. Any other iterable is
    iterated from its start, skipping the batches of finished steps, so it must yield the same
    batches again. The settings and the first batch identify the run.

    Args:
      base: the frozen model, of `load`.
      method: the method to train.
      batches: a function from the step, starting at 0, to its batch, which is called on another
        thread a few steps ahead; or an iterable of batches, repeated if it can be iterated again.
      folder: the run folder.
      evaluate: selects the best step: a function of the `Adapter` in training that returns an
        `Evaluation` or a score (higher is better), such as
        `lambda adapter: pt.evaluate(base, adapter, "tinyworld_rte")`; or batches, to select by
        their loss per token. None keeps the last.
      name: the task name recorded in the prompt's file and the summary.
      steps: number of updates.
      learning_rate: Adafactor's learning rate, if no optimizer is given.
      optimizer: as in `train`.
      seed: seed of initial values and dropout.
      eval_every: steps between evaluations.
      checkpoint_every: steps between checkpoints.
      log_every: steps between logged losses.
      patience: stop after this many evaluations without a better score; None never stops early.
      settings: any other `predict` or `train` parameters in docs/parameters.md.
      overwrite: remove any run in the folder and start over.
      quiet: print nothing.

    Raises:
      UserError: an argument is out of range, a batch is invalid, there are too few batches, the
        folder contains another run, or training diverges.
    """
    arguments = dict(locals())
    for own in ("batches", "evaluate", "name", "quiet"):
        del arguments[own]
    with shown(not quiet):
        source = BatchSource(batches, base.config)
        first = source.batch(0)
        rows, target_length = first["decoder_target_tokens"].shape
        lengths = {"inputs": first["encoder_input_tokens"].shape[1], "targets": target_length}
        spec = _run_spec(task=options.BATCHES, batch_size=rows, lengths=lengths, **arguments)
        data = dataclasses.replace(spec.data, name=name)
        if evaluate is None or callable(evaluate):
            score = evaluate
        else:
            score = loss_of_batches(base, evaluate)
        job = prepare_batches(base, data, spec.prediction, spec.training, source, score)
        contents = {"contents of the first batch": hash_of_batch(first)}
        opened = open_folder(job, spec.values, overwrite=overwrite, contents=contents)
        say(start_block(run_facts(job, **chosen(job, spec.values))))
        train_job(job, opened)
    return _run(job)


def evaluate(
    base: Base,
    trained: "Run | Adapter | Injection | str | FilePath | Float[AnyArray, 'prompt embed'] | None",
    task: str | Task | Mixture,
    *,
    split: str = "validation",
    batch_size: int = 32,
    lengths: Mapping[str, int] | None = None,
    data_dir: str | FilePath | None = None,
    predict: str = "greedy",
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Scores an adapter on any task.

    Args:
      base: the frozen model, of `load`.
      trained: a run, to score its best adapter; a file or folder in any format of docs/adapters.md;
        an `Adapter`; a prompt, float [length, embed]; an `Injection`; or None for the frozen model
        only.
      task: the name of a task or mixture, or a `Task`.
      split: the task's split to score.
      batch_size: examples per batch.
      lengths: maximum "inputs" and "targets" in tokens, including end of sequence; None uses the
        task's.
      data_dir: data folder of a task that reads the user's files.
      predict: "greedy", "beam", "sample", or "rank" over the task's labels.
      settings: any other `data` or `predict` parameters in docs/parameters.md.
      quiet: print nothing.

    Raises:
      UserError: a file can't be read or belongs to another model, the split doesn't exist, or its
        labels are withheld.
    """
    options.check_names(settings or {})
    values = {
        **task_values(base, task, batch_size, lengths, data_dir, predict),
        **(settings or {}),
    }
    data = options.data_of(values, task)
    prediction = options.prediction_of(values, data)
    if isinstance(trained, Run):
        trained = trained.adapter
    if isinstance(trained, str | FilePath):
        path = str(trained)
        trained = base.load_adapter(path)
        prompts.check_target_form(data, trained, path)
    if isinstance(trained, Adapter):
        inject = trained.inject
    else:
        injection = Injection() if trained is None else trained
        if not isinstance(injection, Injection):
            injection = prompts.injection_of(base, injection)
        inject = lambda batch: injection  # noqa: E731
    with shown(not quiet):
        return scoring.evaluate(base, data, prediction, split, inject)


def _run_spec(
    *,
    base: Base,
    method: Callable[[Base], Method],
    task: str | Task | Mixture | Rows,
    folder: str | FilePath,
    **given: Any,
) -> RunSpec:
    """Returns the specification of a run; writes rows in memory into its folder."""
    defaults = inspect.signature(train).parameters
    if unknown := sorted(given.keys() - defaults.keys()):
        raise TypeError(f"train() has no argument {unknown[0]!r}")
    arguments = {name: each.default for name, each in defaults.items()} | given
    where = as_path(run_folder(expanded(str(folder)), "folder"))
    if not isinstance(task, Reference):
        of_rows = {name: arguments[name] for name in _OF_ROWS}
        task = given_task(task, where, overwrite=arguments["overwrite"], **of_rows)
    return run_spec(base, method, task, where, arguments)


_OF_ROWS = ("inputs", "targets", "validation", "test", "held_out", "labels", "metric")
"""The arguments of `train` that turn rows into a task."""


def _given_task(
    task: str | Task | Mixture | Rows, folder: FilePath, *, overwrite: bool, **of_rows: Any
) -> str | Task | Mixture:
    defaults = inspect.signature(train).parameters
    arguments = {name: defaults[name].default for name in _OF_ROWS} | of_rows
    return given_task(task, folder, overwrite=overwrite, **arguments)


def _run(job: Job) -> Run:
    return Run(folder=job.training.path, base=job.base, data=job.data, prediction=job.prediction)


def _check_members(specs: Mapping[str, RunSpec]) -> None:
    """Checks that runs differ only in per-member settings."""
    (first, spec), *others = specs.items()
    for name, other in others:
        for setting in sorted(spec.values.keys() | other.values.keys()):
            known = mark(setting)
            expected, found = (each.values.get(setting) for each in (spec, other))
            if expected is not found and not known.per_member and str(expected) != str(found):
                raise UserError(
                    f"{setting} is {found} for the member {name} and {expected} for {first}; "
                    "members of one population must have the same. Train that one separately."
                )


def _loaded_once() -> Callable[[Base, Data, str], list[TokenizedSplit]]:
    """Returns a function that loads splits like `load_splits`, once for equal data."""
    loaded: list[tuple[Data, str, list[TokenizedSplit]]] = []

    def load(base: Base, data: Data, split: str) -> list[TokenizedSplit]:
        for known, name, splits in loaded:
            if (known, name) == (data, split):
                return splits
        splits = load_splits(base, data, split)
        loaded.append((data, split, splits))
        return splits

    return load
