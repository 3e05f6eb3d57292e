"""Targets as they are, or with a sentinel in front ("span corruption + sentinel").

A T5 trained on span corruption alone has never produced a text without sentinels: every target of
its pre-training begins with `<extra_id_0>`. Lester et al. (2021, section 3.2) therefore put that
sentinel before the targets of the tasks as well. Here this is done on token ids, after truncation,
so neither the tasks nor the token cache know of it; answers lose the sentinel before scoring.
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
    """How the targets of tasks are written for a model.

    Attributes:
      vocabulary: the frozen model's.
      sentinel: whether `<extra_id_0>` comes first.

    Raises:
      UserError: the vocabulary has no sentinels.
    """

    vocabulary: Vocabulary
    sentinel: bool = False

    def __post_init__(self):
        if self.sentinel and not self.vocabulary.num_sentinels:
            raise UserError(
                f"The vocabulary {self.vocabulary.path} has no sentinels, so none can come before "
                "the targets; leave out data.target_sentinel, or set vocabulary.extra_ids."
            )

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids that come before every target."""
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
        """Returns the labels' ids as `Vocabulary.encode_labels` does, in this form."""
        return self.before(self.vocabulary.encode_labels(labels))

    def before(self, ids: Int[np.ndarray, "rows target"]) -> Int[np.ndarray, "rows longer"]:
        """Returns rows of target ids in this form."""
        prefix = np.tile(np.asarray(self.prefix, ids.dtype), (len(ids), 1))
        return np.concatenate([prefix, ids], axis=1)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text of an answer's ids, without the sentinel if it begins with that."""
        answer = tuple(map(int, ids))
        if self.sentinel and answer[:1] == self.prefix:
            answer = answer[1:]
        return self.vocabulary.decode(answer)
