"""What gin can configure: each function here fills one library function or dataclass.

The library takes values and knows nothing of gin; these few lines are where a name in a gin file
meets an argument. Methods and their initialisers need the frozen model and its vocabulary, so
gin is given a function of those two, `Base`:

    train.method = @soft_prompt          # soft_prompt(base) -> a method
    soft_prompt.initializer = @class_label   # class_label(base) -> an initialiser
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from prompt_tuning.checkpoints.prompt_files import load_prompt
from prompt_tuning.cli import user_tasks
from prompt_tuning.cli.frozen_base import (  # registered with gin, like the next two
    Base,
    frozen_model,
    layout,
    processes,
    vocabulary,
)
from prompt_tuning.cli.prediction import Prediction, predict
from prompt_tuning.cli.registry import register
from prompt_tuning.cli.training_options import Training, population, successive_halving, train
from prompt_tuning.data.feature_lengths import FEATURES
from prompt_tuning.data.feature_lengths import feature_lengths as lengths_of
from prompt_tuning.data.mixtures import Mixture, mixture_of
from prompt_tuning.data.sampling import EVERYTHING, HELD_OUT, Sample, with_held_out
from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.token_batches import TokenBudget
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.settings import Changeable, HashedFiles, PerMember

__all__ = [
    "Base",
    "Data",
    "Prediction",
    "Training",
    "class_label",
    "data",
    "from_file",
    "from_string",
    "frozen_model",
    "layout",
    "population",
    "predict",
    "processes",
    "random_uniform",
    "sampled_vocabulary",
    "soft_prompt",
    "successive_halving",
    "train",
    "vocabulary",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on and scored: a task, or the tasks of a mixture; lengths in tokens.

    batch_tokens: tokens a batch; where it isn't None, batches have no constant size.
    extra_tokens: positions that an example costs beside its input's.
    num_lengths: padded source lengths, that is, compiled shapes.
    target_sentinel: whether a sentinel, not counted in `lengths`, comes before every target.
    rates: the share of each task in what is trained on; None: by their sizes.
    training_sample: which of the training examples are trained on.
    development_sample: which examples the best prompt is chosen on.
    development_split: the split that this sample is of; every other split is scored whole.
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
    training_sample: Sample = EVERYTHING
    development_sample: Sample = EVERYTHING
    development_split: str = "validation"

    def sample(self, split: str) -> Sample:
        """Which examples of a split are used."""
        samples = {"train": self.training_sample, self.development_split: self.development_sample}
        return samples.get(split, EVERYTHING)

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
    mixture_or_task: PerMember[str | Task | Mixture],
    batch_size: int,
    feature_lengths: PerMember[Mapping[str, Any] | None] = None,
    data_dir: PerMember[Changeable[str | None]] = None,
    batch_tokens: int | None = None,
    extra_tokens: int = 0,
    num_lengths: int = 4,
    target_sentinel: bool = False,
    max_examples: PerMember[int | None] = None,
    examples_per_label: PerMember[int | None] = None,
    max_eval_examples: PerMember[int | None] = None,
    eval_examples_per_label: PerMember[int | None] = None,
    sample_seed: PerMember[int] = 0,
    held_out: PerMember[float | None] = None,
    shorten: PerMember[str | Mapping[str, str] | None] = None,
) -> Data:
    """The tasks and how they are cut into batches.

    `mixture_or_task` is a name, or what `user_files` or `mixture` makes. What isn't in
    `feature_lengths` is the tasks' own, of a mixture's the longest. With `batch_tokens` a batch
    has as many examples as fit into so many tokens, each counted at its padded length and
    `extra_tokens`, such as the prompt's; see `data/token_batches.py`. `target_sentinel` puts
    `<extra_id_0>` before every target, for models of span corruption alone; see
    `data/target_sentinel.py`.

    Of the training split, of each task, `max_examples` at random or `examples_per_label` of each
    label are used, and of the validation split likewise those of the next two; see
    `data/sampling.py`. With `held_out`, that share of the training rows is a split `held_out`,
    which is then the one sampled instead of the validation split. `shorten` is the column that
    loses its end where inputs are too long, of every task or by the task's name.
    """
    given = mixture_of(mixture_or_task)
    tasks = given.tasks
    if batch_size < 1:
        raise UserError(f"BATCH_SIZE is {batch_size}; it must be at least 1.")
    if num_lengths < 1:
        raise UserError(f"data.num_lengths is {num_lengths}; it must be at least 1.")
    if held_out is not None:
        tasks = tuple(with_held_out(task, held_out) for task in tasks)
    if shorten is not None:
        column_of = shorten if isinstance(shorten, Mapping) else {}
        tasks = tuple(
            dataclasses.replace(task, shorten=column_of.get(task.name) if column_of else shorten)
            for task in tasks
        )
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
        training_sample=Sample(
            examples=max_examples, per_label=examples_per_label, seed=sample_seed
        ),
        development_sample=Sample(
            examples=max_eval_examples, per_label=eval_examples_per_label, seed=sample_seed
        ),
        development_split="validation" if held_out is None else HELD_OUT,
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
def from_file(base: Base, path: HashedFiles[str]) -> initializers.Initializer:
    """A prompt file's values: another run's prompt, or another task's (SPoT)."""
    expect = (None, base.config.embed_dim)
    prompt, _ = load_prompt(
        path, expect, model=base.config.name, vocabulary_hash=base.vocabulary.hash
    )
    return initializers.from_array(prompt)


def _pieces(base: Base) -> Any:
    """The rows of the embedding that are pieces: neither sentinels nor the padding after them."""
    return base.embedding[: base.vocabulary.num_pieces]
