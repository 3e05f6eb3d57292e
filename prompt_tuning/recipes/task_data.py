"""What is trained on and scored."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from prompt_tuning.data.batching import mixed_batch
from prompt_tuning.data.feature_lengths import FEATURES
from prompt_tuning.data.feature_lengths import feature_lengths as lengths_of
from prompt_tuning.data.mixtures import Mixture, mixture_of
from prompt_tuning.data.sampling import EVERYTHING, HELD_OUT, Sample, with_held_out
from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.token_batches import TokenBudget
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import at_least
from prompt_tuning.models.injection import Injection
from prompt_tuning.settings import Changeable, Mark, PerMember

# Run folders recorded 100 for every method before it followed the prompt's length.
ExtraTokens = Annotated[
    int | None,
    Mark(changeable=True, note="batches of BATCH_TOKENS stay as they were only with the old value"),
]


def prompt_length(inject: Callable[[Any], Injection], splits: Sequence[TokenizedSplit]) -> int:
    """Returns the positions that an injection puts around each input; nothing is computed."""
    lengths: list[int] = []

    def trace(batch: Mapping[str, jax.Array]) -> None:
        injection = inject(batch)
        lengths.append(injection.encoder_prompt_length + injection.encoder_suffix_length)

    first = splits[0]
    sizes = len(first.inputs[0]), len(first.targets[0])
    jax.eval_shape(trace, mixed_batch(splits, np.array([[0, 0]]), sizes[:1], sizes[1]))
    return lengths[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on and scored: a task, or the tasks of a mixture; lengths in tokens.

    Attributes:
      batch_tokens: tokens a batch; where it isn't None, batches have no constant size.
      extra_tokens: positions that an example costs beside its input's; None: the prompt's.
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
    extra_tokens: int | None = None
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

    def token_budget(
        self, row_multiple: int, prompt_length: Callable[[], int]
    ) -> TokenBudget | None:
        """The rows of batches that are measured in tokens, each a multiple of `row_multiple`."""
        if self.batch_tokens is None:
            return None
        return TokenBudget(
            tokens=self.batch_tokens,
            extra=prompt_length() if self.extra_tokens is None else self.extra_tokens,
            row_multiple=row_multiple,
            num_lengths=self.num_lengths,
        )


def of_any_task(batch_size: int, feature_lengths: Mapping[str, Any]) -> Data:
    """How inputs of any task are batched: the maximum batch size and lengths."""
    at_least(1, {"BATCH_SIZE": batch_size})
    lengths = lengths_of(feature_lengths)
    return Data(name="any", tasks=(), lengths=lengths, data_dir=None, batch_size=batch_size)


def data(
    mixture_or_task: PerMember[str | Task | Mixture],
    batch_size: int,
    feature_lengths: PerMember[Mapping[str, Any] | None] = None,
    data_dir: PerMember[Changeable[str | None]] = None,
    batch_tokens: int | None = None,
    extra_tokens: ExtraTokens = None,
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
    """The tasks and how they are batched.

    `mixture_or_task` is a name, or what `user_files` or `mixture` makes. What isn't in
    `feature_lengths` is the tasks' own, of a mixture's the longest. With `batch_tokens` a batch
    has as many examples as fit into so many tokens, each counted at its padded length and
    `extra_tokens`, by default the prompt's length; see `data/token_batches.py`.
    `target_sentinel` puts `<extra_id_0>` before every target, for models of span corruption
    alone; see `data/target_sentinel.py`.

    Of the training split, of each task, `max_examples` at random or `examples_per_label` of each
    label are used, and of the validation split likewise those of the next two; see
    `data/sampling.py`. With `held_out`, that share of the training rows is a split `held_out`,
    which is then the one sampled instead of the validation split. `shorten` is the column that
    loses its end where inputs are too long, of every task or by the task's name.
    """
    given = mixture_of(mixture_or_task)
    tasks = given.tasks
    at_least(1, {"BATCH_SIZE": batch_size, "data.num_lengths": num_lengths})
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
