"""Data options: tasks, lengths and batches."""

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

# Older run folders recorded 100, the former default, for every method.
ExtraTokens = Annotated[
    int | None,
    Mark(changeable=True, note="batches of BATCH_TOKENS stay the same only with the old value"),
]


def prompt_length(inject: Callable[[Any], Injection], splits: Sequence[TokenizedSplit]) -> int:
    """Returns the number of positions an injection adds to each input."""
    first = splits[0]
    sizes = len(first.inputs[0]), len(first.targets[0])
    batch = mixed_batch(splits, np.array([[0, 0]]), sizes[:1], sizes[1])
    return added_lengths(inject, batch)[0]


def added_lengths(inject: Callable[[Any], Injection], batch: Any) -> tuple[int, int]:
    """Returns the positions that an injection adds to each input and to each target.

    It is evaluated abstractly.
    """
    lengths: list[tuple[int, int]] = []

    def trace(batch: Mapping[str, jax.Array]) -> None:
        found = inject(batch)
        encoder = found.encoder_prompt_length + found.encoder_suffix_length
        lengths.append((encoder, found.decoder_prompt_length))

    jax.eval_shape(trace, batch)
    return lengths[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A task or a mixture's tasks, and how they are batched; lengths are in tokens.

    Attributes:
      batch_tokens: tokens per batch; if not None, the batch size varies.
      extra_tokens: positions that an example needs in addition to its input; None is the prompt's
        length.
      num_lengths: number of padded source lengths, that is, of compiled shapes.
      target_sentinel: whether a sentinel, not counted in `lengths`, precedes every target.
      rates: share of each task in training batches; None is proportional to size.
      training_sample: the training examples to use.
      development_sample: the examples used to select the best prompt.
      development_split: the split of that sample; all other splits are scored in full.
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
        """Returns the sample of a split to use."""
        samples = {"train": self.training_sample, self.development_split: self.development_sample}
        return samples.get(split, EVERYTHING)

    @property
    def target_length(self) -> int:
        """Maximum target length in tokens, including end of sequence and any sentinel."""
        return self.lengths["targets"] + self.target_sentinel

    def target_form(self, vocabulary: Vocabulary) -> TargetForm:
        """Returns the format of targets and answers."""
        return TargetForm(vocabulary, self.target_sentinel)

    def token_budget(
        self, row_multiple: int, prompt_length: Callable[[], int]
    ) -> TokenBudget | None:
        """Returns the budget of batches measured in tokens, in multiples of `row_multiple` rows."""
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

    `mixture_or_task` is a name, or the result of `user_files` or `mixture`. Lengths missing in
    `feature_lengths` are the task's, or the maximum of the mixture's. With `batch_tokens`, a batch
    has as many examples as fit, each counted as its padded length plus `extra_tokens` (by default
    the prompt's length); see `data/token_batches.py`. `target_sentinel` puts `<extra_id_0>` before
    every target, for models pre-trained with span corruption only; see `data/target_sentinel.py`.

    Each task's training split is reduced to `max_examples` random examples or to
    `examples_per_label`, its validation split to `max_eval_examples` or `eval_examples_per_label`;
    see `data/sampling.py`. `held_out` holds out this share of the training rows as a split
    `held_out`, which is sampled instead of the validation split. `shorten` is the column truncated
    if inputs are too long, for all tasks or by task name.
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
