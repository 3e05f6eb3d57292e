"""Targets with or without a sentinel in front ("span corruption + sentinel").

A T5 trained only on span corruption has never produced text without sentinels: every target of its
pre-training starts with `<extra_id_0>`. Lester et al. (2021, section 3.2) therefore prepend that
sentinel to the targets of tasks, too. Here it is added to token ids, after truncation, so tasks and
the token cache don't depend on it; it is removed from answers before scoring.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import SupportsInt

import numpy as np
from jaxtyping import Int

from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class TargetForm:
    """The form of targets for a model.

    Attributes:
      vocabulary: the frozen model's.
      sentinel: whether targets start with `<extra_id_0>`.

    Raises:
      UserError: the vocabulary has no sentinels.
    """

    vocabulary: Vocabulary
    sentinel: bool = False

    def __post_init__(self):
        if self.sentinel and not self.vocabulary.num_sentinels:
            raise UserError(
                f"The vocabulary {self.vocabulary.path} has no sentinels, so none can be put "
                "before the targets; unset data.target_sentinel, or set vocabulary.extra_ids."
            )

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids before every target."""
        return (self.vocabulary.first_sentinel,) if self.sentinel else ()

    def split(self, split: TokenizedSplit) -> TokenizedSplit:
        """Returns a split with its targets in this form."""
        if not self.sentinel:
            return split
        targets = split.targets
        values = np.insert(targets.values, targets.offsets[:-1], self.prefix[0])
        offsets = targets.offsets + np.arange(len(targets.offsets))
        return dataclasses.replace(split, targets=Ragged(values, offsets))

    def encode_labels(self, labels: Sequence[str]) -> Int[np.ndarray, "labels target"]:
        """Returns the labels' ids in this form; otherwise as `Vocabulary.encode_labels`."""
        return self.before(self.vocabulary.encode_labels(labels))

    def before(self, ids: Int[np.ndarray, "rows target"]) -> Int[np.ndarray, "rows longer"]:
        """Returns rows of target ids in this form."""
        prefix = np.tile(np.asarray(self.prefix, ids.dtype), (len(ids), 1))
        return np.concatenate([prefix, ids], axis=1)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text of an answer's ids, without a sentinel at the start."""
        answer = tuple(map(int, ids))
        if self.sentinel and answer[:1] == self.prefix:
            answer = answer[1:]
        return self.vocabulary.decode(answer)
