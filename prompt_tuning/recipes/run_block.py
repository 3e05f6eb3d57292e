"""What a run says at its start and at its end: short blocks of lines, from plain values."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax

from prompt_tuning.errors import listed
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.pretraining import PretrainingJob
from prompt_tuning.recipes.training_options import Training
from prompt_tuning.training.optimizers import Optimizer

_WARNING = "Warning: "
_MOST_TASKS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the block at the start of a run is made of.

    trainable, parameters: how many are trained, and how many the model has.
    learning_rate: in words, see `learning_rate_text`.
    tasks: a line each: its name, its examples and labels.
    lengths: the longest inputs and targets, in tokens.
    cut: how many examples of each split were longer, by feature.
    batch: in words, such as "32 examples".
    epochs: passes over the training examples; None where a batch is measured in tokens, or given.
    warnings: a line each.
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
    """Returns the lines that a run begins with."""
    epochs = "" if facts.epochs is None else f", {facts.epochs:,.1f} epochs"
    rows = [
        ("Method", f"{facts.method}, {facts.trainable:,} trainable parameters"),
        ("Model", f"{facts.model}, {facts.parameters:,} parameters"),
        ("Optimizer", f"{facts.optimizer}, learning rate {facts.learning_rate}"),
        *_task_rows(facts.tasks),
        ("Lengths", _lengths_text(facts)),
        ("Batch", f"{facts.batch}; {facts.steps:,} steps{epochs}"),
        ("Precision", facts.precision),
        ("Devices", facts.devices),
        ("Run folder", facts.folder),
    ]
    return aligned(rows) + "".join(f"\n{_WARNING}{warning}" for warning in facts.warnings)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Returns `name  value` lines, the values below one another."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in rows)


def _task_rows(tasks: Sequence[str]) -> list[tuple[str, str]]:
    lines = list(tasks[:_MOST_TASKS])
    if len(tasks) > _MOST_TASKS:
        lines.append(f"and {len(tasks) - _MOST_TASKS:,} more tasks")
    return [("" if number else "Task", line.rstrip(".")) for number, line in enumerate(lines)]


def _lengths_text(facts: RunFacts) -> str:
    longest = ", ".join(f"{name} {length}" for name, length in facts.lengths.items())
    cut = [
        f"{count:,} {feature} of {split}"
        for split, features in facts.cut.items()
        for feature, count in features.items()
        if count
    ]
    return f"{longest} tokens; " + (f"cut: {listed(cut)}" if cut else "nothing was cut")


def learning_rate_text(optimizer: Optimizer, steps: int) -> str:
    """Returns the learning rate, or of a schedule its first, its highest and its last value."""
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


def run_facts(job: Job, *, method: str, optimizer: str, warnings: Sequence[str] = ()) -> RunFacts:
    """Returns the facts of a run that is about to train; the method and the optimizer by name."""
    data, options = job.data, job.training.options
    found = [line for line in job.findings if line.startswith(_WARNING)]
    warnings = [*warnings, *(line.removeprefix(_WARNING) for line in found)]
    examples = sum(map(len, job.training_splits))
    if data.batch_tokens is None and data.batch_size > examples > 0:
        warnings = [
            *warnings,
            f"BATCH_SIZE is {data.batch_size:,}, more than the {examples:,} training examples.",
        ]
    batch, epochs = f"{data.batch_size:,} examples", None
    if data.batch_tokens is not None:
        batch = f"{data.batch_tokens:,} tokens"
    elif examples:
        epochs = options.train_steps * data.batch_size / examples
    if options.accumulation_steps > 1:
        batch += f" in {options.accumulation_steps} microbatches"
    return RunFacts(
        method=method,
        trainable=count_parameters(job.trained),
        model=job.base.config.name,
        parameters=count_parameters(job.base.params),
        optimizer=optimizer,
        learning_rate=_rate_text(job.training),
        tasks=[line for line in job.findings if not line.startswith(_WARNING)],
        lengths=data.lengths,
        cut=job.truncated,
        batch=batch,
        steps=options.train_steps,
        epochs=epochs,
        precision=precision_text(job.base.compute),
        devices=devices_text(),
        folder=f"{job.training.path}/",
        warnings=warnings,
    )


def pretraining_facts(job: PretrainingJob, *, optimizer: str) -> RunFacts:
    """Returns the facts of a run that is about to train all weights on text."""
    objective, options = job.objective, job.training.options
    parameters = count_parameters(job.base.params)
    return RunFacts(
        method="all weights",
        trainable=parameters,
        model=job.model_name,
        parameters=parameters,
        optimizer=optimizer,
        learning_rate=_rate_text(job.training),
        tasks=[f"{objective.name} on {job.tokens:,} tokens"],
        lengths=objective.lengths,
        cut={},
        batch=f"{objective.batch_size:,} pieces of {objective.piece_length:,} tokens",
        steps=options.train_steps,
        epochs=options.train_steps / job.stream.steps_per_epoch,
        precision=precision_text(job.base.compute),
        devices=devices_text(),
        folder=f"{job.training.path}/",
    )


def _rate_text(training: Training) -> str:
    if not isinstance(training.optimizer, Optimizer):
        return "of its own"
    return learning_rate_text(training.optimizer, training.options.train_steps)


def precision_text(compute) -> str:
    """Returns the number formats of a model (`T5Config`): its weights' and its activations'."""
    weights = compute.quantization or compute.param_dtype
    text = f"{weights} weights, {compute.compute_dtype} activations"
    if compute.product_dtype != compute.compute_dtype:
        text += f", matrix products in {compute.product_dtype}"
    return text


def devices_text() -> str:
    """Returns the devices of all processes, such as "8 x NVIDIA H100, in 2 processes"."""
    processes = jax.process_count()
    text = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return text if processes == 1 else f"{text}, in {processes} processes"
