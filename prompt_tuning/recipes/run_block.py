"""The blocks of lines printed at the start and end of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prompt_tuning.errors import listed
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.pretraining import PretrainingJob
from prompt_tuning.training.optimizers import Optimizer

_WARNING = "Warning: "
_MOST_TASKS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Contents of the block at the start of a run.

    Attributes:
      trainable: the number of trainable parameters.
      parameters: the number of the model's parameters.
      learning_rate: in words; see `learning_rate_text`.
      tasks: one line per task: its name, examples and labels.
      lengths: maximum inputs and targets, in tokens.
      cut: number of truncated examples of each split, by feature.
      batch: in words, such as "32 examples".
      epochs: passes over the training examples; None for batches measured in tokens or
        user-provided.
      warnings: one line each.
    """

    method: str
    trainable: int
    model: str
    parameters: int
    optimizer: str
    learning_rate: str
    tasks: Sequence[str]
    lengths: Mapping[str, int]
    cut: Mapping[str, Mapping[str, int]]
    batch: str
    steps: int
    epochs: float | None
    precision: str
    devices: str
    folder: str
    warnings: Sequence[str] = ()


def start_block(facts: RunFacts) -> str:
    """Returns the lines printed at the start of a run."""
    epochs = "" if facts.epochs is None else f", {facts.epochs:,.1f} epochs"
    tasks = list(facts.tasks[:_MOST_TASKS])
    if len(facts.tasks) > _MOST_TASKS:
        tasks.append(f"and {len(facts.tasks) - _MOST_TASKS:,} more tasks")
    longest = ", ".join(f"{name} {length}" for name, length in facts.lengths.items())
    cut = [
        f"{count:,} {feature} of {split}"
        for split, features in facts.cut.items()
        for feature, count in features.items()
        if count
    ]
    rows = [
        ("Method", f"{facts.method}, {facts.trainable:,} trainable parameters"),
        ("Model", f"{facts.model}, {facts.parameters:,} parameters"),
        ("Optimizer", f"{facts.optimizer}, learning rate {facts.learning_rate}"),
        *(("" if number else "Task", line.rstrip(".")) for number, line in enumerate(tasks)),
        (
            "Lengths",
            f"{longest} tokens; "
            + (f"truncated: {listed(cut)}" if cut else "nothing was truncated"),
        ),
        ("Batch", f"{facts.batch}; {facts.steps:,} steps{epochs}"),
        ("Precision", facts.precision),
        ("Devices", facts.devices),
        ("Run folder", facts.folder),
    ]
    return aligned(rows) + "".join(f"\n{_WARNING}{warning}" for warning in facts.warnings)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Returns `name  value` lines with aligned values."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)


def learning_rate_text(optimizer: Optimizer, steps: int) -> str:
    """Returns the learning rate, or the first, maximum and last value of a schedule."""
    rate = optimizer.learning_rate
    if not callable(rate):
        return f"{rate:g}"
    counts = sorted({round(i * (steps - 1) / 20) for i in range(21)})
    values = [float(rate(count)) for count in counts]  # pyright: ignore[reportArgumentType]
    highest = max(values)
    if len({f"{value:.3g}" for value in values}) == 1:
        return f"{highest:.3g}"
    first, last = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    if f"{highest:.3g}" == last:
        return f"rising from {first} to {last}"
    if f"{highest:.3g}" == first:
        return f"falling from {first} to {last}"
    return f"rising from {first} to {highest:.3g}, then falling to {last}"


def run_facts(job: Job, *, method: str, optimizer: str) -> RunFacts:
    """Returns the facts of a training run, given its method's and optimizer's names."""
    data, options = job.data, job.training.options
    examples = sum(map(len, job.training_splits))
    batch, epochs = f"{data.batch_size:,} examples", None
    if data.batch_tokens is not None:
        batch = f"{data.batch_tokens:,} tokens"
    elif examples:
        epochs = options.train_steps * data.batch_size / examples
    if options.accumulation_steps > 1:
        batch += f" in {options.accumulation_steps} microbatches"
    found = [line for line in job.findings if line.startswith(_WARNING)]
    warnings = [line.removeprefix(_WARNING) for line in found]
    if data.batch_tokens is None and data.batch_size > examples > 0:
        warnings.append(
            f"BATCH_SIZE is {data.batch_size:,}, more than the {examples:,} training examples."
        )
    return _facts(
        job,
        method=method,
        trainable=count_parameters(job.trained),
        model=job.base.config.name,
        optimizer=optimizer,
        tasks=[line for line in job.findings if line not in found],
        lengths=data.lengths,
        cut=job.truncated,
        batch=batch,
        epochs=epochs,
        warnings=warnings,
    )


def pretraining_facts(job: PretrainingJob, *, optimizer: str) -> RunFacts:
    """Returns the facts of a pre-training run."""
    objective = job.objective
    return _facts(
        job,
        method="all weights",
        trainable=count_parameters(job.base.params),
        model=job.model_name,
        optimizer=optimizer,
        tasks=[f"{objective.name} on {job.tokens:,} tokens"],
        lengths=objective.lengths,
        cut={},
        batch=f"{objective.batch_size:,} pieces of {objective.piece_length:,} tokens",
        epochs=job.training.options.train_steps / job.stream.steps_per_epoch,
    )


def _facts(job: Job | PretrainingJob, **facts: Any) -> RunFacts:
    """Returns facts, completed by those common to training and pre-training."""
    training, compute = job.training, job.base.compute
    steps = training.options.train_steps
    rate = "set by the optimizer"
    if isinstance(training.optimizer, Optimizer):
        rate = learning_rate_text(training.optimizer, steps)
    weights = compute.quantization or compute.param_dtype
    precision = f"{weights} weights, {compute.compute_dtype} activations"
    if compute.product_dtype != compute.compute_dtype:
        precision += f", matrix products in {compute.product_dtype}"
    precision += "; flash attention" if compute.attention == "flash" else ""
    precision += "; layers in a loop" if compute.unroll else "; layers unrolled"
    precision += ", recomputed backward" if compute.remat is True else ""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if jax.process_count() > 1:
        devices += f", in {jax.process_count()} processes"
    return RunFacts(
        parameters=count_parameters(job.base.params),
        learning_rate=rate,
        steps=steps,
        precision=precision,
        devices=devices,
        folder=f"{training.path}/",
        **facts,
    )
