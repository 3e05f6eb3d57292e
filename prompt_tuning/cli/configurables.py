"""What gin can configure: each function here fills one library function or dataclass.

The library takes values and knows nothing of gin; these few lines are where a name in a gin file
meets an argument. Methods and their initialisers need the frozen model and its vocabulary, so
gin is given a function of those two, `Base`:

    train.method = @soft_prompt          # soft_prompt(base) -> a method
    soft_prompt.initializer = @class_label   # class_label(base) -> an initialiser
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import optax
from jax.sharding import Mesh

from prompt_tuning.checkpoints.frozen import load_frozen
from prompt_tuning.checkpoints.locations import locate
from prompt_tuning.checkpoints.prompt_files import load_prompt
from prompt_tuning.checkpoints.stored_arrays import ShardingOf
from prompt_tuning.cli import user_tasks
from prompt_tuning.cli.gin_config import forget, register
from prompt_tuning.cli.paths import run_folder
from prompt_tuning.cli.prediction import Prediction, predict  # noqa: F401 - registered with gin
from prompt_tuning.data.feature_lengths import FEATURES
from prompt_tuning.data.feature_lengths import feature_lengths as lengths_of
from prompt_tuning.data.mixtures import Mixture, get_tasks
from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.token_batches import TokenBudget
from prompt_tuning.data.vocabularies import Vocabulary, find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.hardware import fastest_matmul_dtype
from prompt_tuning.models.parameter_axes import parameter_axes
from prompt_tuning.models.t5 import T5, Params
from prompt_tuning.parallel.mesh import gathered, make_mesh
from prompt_tuning.parallel.processes import ProcessOptions, from_environment
from prompt_tuning.parallel.rules import Layout
from prompt_tuning.training import optimizers
from prompt_tuning.training.halving import Halving
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.options import TrainOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """What a prompt is trained on top of, and how it lies on the devices.

    vocabulary: a `Vocabulary`; None where a method is asked for its sizes alone.
    """

    config: T5Config
    params: Params
    vocabulary: Any
    layout: Layout

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        assert isinstance(self.layout.mesh, Mesh)
        return self.layout.mesh

    @property
    def model(self) -> T5:
        """The network that `params` belong to."""
        return T5(self.config, self.layout.place) if self.layout.fsdp else T5(self.config)

    @property
    def embedding(self) -> Any:
        """The frozen token embedding, [vocab, embed], where this process can read all of it."""
        table = self.params["token_embedder"]["embedding"]
        return table if self.mesh.size == 1 else gathered(table)


@register
def layout(model_parallel: int = 1, data_parallel: int | None = None, fsdp: bool = False) -> Layout:
    """How the frozen model lies on the devices; see `make_mesh` and `Layout`."""
    mesh = make_mesh(model=model_parallel, data=data_parallel)
    return Layout(mesh=mesh, axes_of=parameter_axes, fsdp=fsdp)


@register
def processes(
    coordinator: str | None = None,
    count: int | None = None,
    index: int | None = None,
    heartbeat_seconds: int = 100,
) -> ProcessOptions | None:
    """How this process joins others, as given or as the environment tells; None: it is alone.

    What is given is forgotten: it holds for this process, not for the run's recorded settings.
    """
    forget("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
    given = ProcessOptions(coordinator=coordinator, count=count, index=index)
    found = from_environment(os.environ) if given.coordinator is None else given
    return found and dataclasses.replace(found, heartbeat_seconds=heartbeat_seconds)


@register
def frozen_model(
    checkpoint: str | None,
    architecture: str | None = None,
    name: str | None = None,
    param_dtype: str | None = None,
    compute_dtype: str = "float32",
    matmul_dtype: str = "",
    remat: bool = False,
    unroll: int = 1,
    dropout_rate: float = 0.0,
    quantization: str = "",
    quantization_block: int = 64,
    quantize_output_layer: bool = False,
    sharding_of: ShardingOf | None = None,
) -> tuple[T5Config, Params]:
    """Loads the frozen model; the options after `name` are those of `T5Config`.

    `sharding_of` isn't gin's to give: it is the `layout`'s.
    `matmul_dtype` may also be "auto": bfloat16 where the hardware is faster in it.

    `name` is what prompts remember of the model: LM-adapted models have the architecture of those
    that aren't. It is the architecture's if None.

    Raises:
      UserError: the checkpoint is of another size than `architecture`, or None.
    """
    if checkpoint is None:
        raise UserError("No frozen model: INITIAL_CHECKPOINT_PATH is None; set it to one.")
    expected = get_config(architecture) if architecture else None
    config, params = load_frozen(
        checkpoint,
        expected,
        param_dtype,
        sharding_of,
        quantization=quantization,
        quantization_block=quantization_block,
        quantize_output_layer=quantize_output_layer,
    )
    config = dataclasses.replace(
        config,
        # Not the folder's name: a prompt fits the model wherever its files are.
        name=name or architecture or config.name,
        compute_dtype=compute_dtype,
        matmul_dtype=fastest_matmul_dtype() if matmul_dtype == "auto" else matmul_dtype,
        remat=remat,
        unroll=unroll,
        dropout_rate=dropout_rate,
    )
    return config, params


@register
def vocabulary(
    path: str | None = None, checkpoint: str | None = None, extra_ids: int | None = None
) -> Vocabulary:
    """The vocabulary of the frozen model.

    Args:
      path: what `find_vocabulary` takes. None looks where the checkpoint is.
      checkpoint: the frozen model, as `frozen_model` takes it.
      extra_ids: how many sentinels to append, as `Vocabulary` takes it.
    """
    if path is not None:
        return find_vocabulary(path, extra_ids)
    if checkpoint is None:
        raise UserError("No vocabulary: add --gin.VOCABULARY_PATH=... (a file or a folder).")
    found = locate(checkpoint)
    return find_vocabulary(found if found.is_dir() else found.parent, extra_ids)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on and scored: a task, or the tasks of a mixture; lengths in tokens.

    batch_tokens: tokens a batch; where it isn't None, batches have no constant size.
    extra_tokens: positions that an example costs beside its input's.
    num_lengths: padded source lengths, that is, compiled shapes.
    target_sentinel: whether a sentinel, not counted in `lengths`, comes before every target.
    rates: the share of each task in what is trained on; None: by their sizes.
    """

    name: str
    tasks: tuple[Task, ...]
    lengths: Mapping[str, int]
    data_dir: str | None
    batch_size: int
    batch_tokens: int | None = None
    extra_tokens: int = 0
    num_lengths: int = 4
    target_sentinel: bool = False
    rates: tuple[float | int, ...] | None = None

    @property
    def target_length(self) -> int:
        """The longest targets in tokens, with end of sequence and a sentinel if there is one."""
        return self.lengths["targets"] + self.target_sentinel

    def target_form(self, vocabulary: Vocabulary) -> TargetForm:
        """How targets are written, and answers read."""
        return TargetForm(vocabulary, self.target_sentinel)

    def token_budget(self, row_multiple: int) -> TokenBudget | None:
        """The rows of batches that are measured in tokens, each a multiple of `row_multiple`."""
        if self.batch_tokens is None:
            return None
        return TokenBudget(
            tokens=self.batch_tokens,
            extra=self.extra_tokens,
            row_multiple=row_multiple,
            num_lengths=self.num_lengths,
        )


@register
def data(
    mixture_or_task: str | Task | Mixture,
    batch_size: int,
    feature_lengths: Mapping[str, Any] | None = None,
    data_dir: str | None = None,
    batch_tokens: int | None = None,
    extra_tokens: int = 0,
    num_lengths: int = 4,
    target_sentinel: bool = False,
) -> Data:
    """The tasks and how they are cut into batches.

    `mixture_or_task` is a name, or what `user_files` or `mixture` makes. What isn't in
    `feature_lengths` is the tasks' own, of a mixture's the longest. With `batch_tokens` a batch
    has as many examples as fit into so many tokens, each counted at its padded length and
    `extra_tokens`, such as the prompt's; see `data/token_batches.py`. `target_sentinel` puts
    `<extra_id_0>` before every target, for models of span corruption alone; see
    `data/target_sentinel.py`.
    """
    given = mixture_or_task
    if isinstance(given, str):
        given = Mixture(name=given, tasks=get_tasks(given))
    elif isinstance(given, Task):
        given = Mixture(name=given.name, tasks=(given,))
    tasks = given.tasks
    if batch_size < 1:
        raise UserError(f"BATCH_SIZE is {batch_size}; it must be at least 1.")
    if num_lengths < 1:
        raise UserError(f"data.num_lengths is {num_lengths}; it must be at least 1.")
    longest = {name: max(task.lengths[name] for task in tasks) for name in FEATURES}
    return Data(
        name=given.name,
        tasks=tasks,
        rates=given.rates,
        lengths=lengths_of(feature_lengths, longest),
        data_dir=data_dir,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        extra_tokens=extra_tokens,
        num_lengths=num_lengths,
        target_sentinel=target_sentinel,
    )


@register
def soft_prompt(
    base: Base, length: int, initializer: Callable[[Base], Any], placement: str = "before"
) -> Method:
    """Prompt tuning's soft prompt of `length` virtual tokens; see `PLACEMENTS`."""
    prompt = SoftPrompt(
        length=length,
        embed_dim=base.config.embed_dim,
        placement=placement,
        initializer=initializer(base),
    )
    return cast(Method, prompt)  # Flax types what `apply` returns only loosely


@register
def random_uniform(base: Base, low: float = -0.5, high: float = 0.5) -> initializers.Initializer:
    """The paper's random initialisation; its released code draws from [0, 0.5)."""
    del base
    return initializers.random_uniform(low, high)


@register
def sampled_vocabulary(
    base: Base, num_pieces: int = initializers.NUM_PIECES
) -> initializers.Initializer:
    """The embeddings of pieces drawn among the most common `num_pieces`."""
    return initializers.sampled_vocabulary(_pieces(base), num_pieces)


@register
def class_label(
    base: Base, labels: Sequence[Any], num_pieces: int = initializers.NUM_PIECES
) -> initializers.Initializer:
    """The embeddings of the label words, then sampled vocabulary: the paper's default."""
    ids = [base.vocabulary.encode(label) for label in user_tasks.words("CLASS_LABELS", labels)]
    return initializers.class_label(_pieces(base), ids, num_pieces)


@register
def from_string(
    base: Base, text: Any, num_pieces: int = initializers.NUM_PIECES
) -> initializers.Initializer:
    """The embeddings of a text's pieces, then sampled vocabulary."""
    if not isinstance(text, str):
        raise UserError(
            f"PROMPT_TEXT is {text!r}; expected a text, such as 'Is this review good?' (put a "
            "number in quotes)."
        )
    return initializers.from_string(_pieces(base), base.vocabulary.encode(text), num_pieces)


@register
def from_file(base: Base, path: str) -> initializers.Initializer:
    """A prompt file's values: another run's prompt, or another task's (SPoT)."""
    expect = (None, base.config.embed_dim)
    prompt, _ = load_prompt(
        path, expect, model=base.config.name, vocabulary_hash=base.vocabulary.hash
    )
    return initializers.from_array(prompt)


def _pieces(base: Base) -> Any:
    """The rows of the embedding that are pieces: neither sentinels nor the padding after them."""
    return base.embedding[: base.vocabulary.num_pieces]


adafactor = register(optimizers.adafactor)
adamw = register(optimizers.adamw)
constant = register(optimizers.constant)
linear_warmup = register(optimizers.linear_warmup)
rsqrt_decay = register(optimizers.rsqrt_decay)
cosine_decay = register(optimizers.cosine_decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """All that training needs beside the base and the data; pre-training has no method.

    teachers: prompt files, one for each task, to distil with the weight `distillation`.
    """

    method: Callable[[Base], Method] | None
    optimizer: optax.GradientTransformation
    loss: LossOptions
    options: TrainOptions
    folder: Path
    teachers: Sequence[str] | None = None
    distillation: float = 0.9


@register
def train(
    folder: str,
    method: Callable[[Base], Method] | None,
    optimizer: optax.GradientTransformation,
    train_steps: int,
    seed: int = 0,
    accumulation_steps: int = 1,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    log_every: int = 100,
    eval_every: int = 1000,
    checkpoint_every: int = 1000,
    keep_checkpoints: int = 2,
    patience: int | None = None,
    prefetch_batches: int = 2,
    tensorboard: bool = True,
    wandb_project: str | None = None,
    teachers: Sequence[str] | None = None,
    distillation: float = 0.9,
) -> Training:
    """A training run; `TrainOptions`, `LossOptions` and `Training` say what the options are."""
    return Training(
        method=method,
        optimizer=optimizer,
        loss=LossOptions(z_loss=z_loss, label_smoothing=label_smoothing),
        options=TrainOptions(
            train_steps=train_steps,
            seed=seed,
            accumulation_steps=accumulation_steps,
            log_every=log_every,
            eval_every=eval_every,
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            patience=patience,
            prefetch_batches=prefetch_batches,
            tensorboard=tensorboard,
            wandb_project=wandb_project,
        ),
        folder=run_folder(folder),
        teachers=teachers,
        distillation=distillation,
    )


@register
def population(places: int = 16, side_by_side: bool | None = None) -> tuple[int, bool]:
    """How the members of a POPULATION train.

    Args:
      places: how many at a time; the others wait.
      side_by_side: compute their steps in one program, or one after another; None: in one program
        but on a single CPU, where that is no faster (`benchmarks/population.py`).

    Returns:
      `places` and `side_by_side`, resolved.
    """
    if side_by_side is None:
        side_by_side = jax.default_backend() != "cpu" or jax.device_count() > 1
    return places, side_by_side


@register
def successive_halving(keep: float = 0.5, rungs: Sequence[int] | None = None) -> Halving:
    """Where `train --tune` drops members; see `Halving`."""
    return Halving(keep=keep, rungs=rungs)
