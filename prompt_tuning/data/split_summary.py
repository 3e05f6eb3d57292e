"""What a user should know of a tokenized split before training on it."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prompt_tuning.data.vocabularies import Vocabulary


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Counts of one split's examples; lengths are in tokens with end of sequence.

    Attributes:
      task: the task's name.
      split: the split's name.
      examples: how many there are.
      limits: the longest that each feature may be.
      longest: the longest of each feature before anything was cut.
      cut: how many examples lost tokens, by feature.
      shortened: how many inputs lost a part of the column that may be shortened.
      empty: how many examples have no text, by feature.
      unspelled: how many targets don't survive the vocabulary: `decode(encode(text))` is
        another text. Labels aren't counted: they are refused.
      first_unspelled: the first of them.
    """

    task: str
    split: str
    examples: int
    limits: Mapping[str, int]
    longest: Mapping[str, int]
    cut: Mapping[str, int]
    empty: Mapping[str, int]
    shortened: int = 0
    unspelled: int = 0
    first_unspelled: str | None = None

    def notes(self, vocabulary: Vocabulary) -> Iterator[str]:
        """Yields a line for each thing that may be wrong with the examples."""
        where = f"{self.task} {self.split}"
        for name, count in self.cut.items():
            if count:
                yield (
                    f"{where}: {count} of {self.examples} examples have {name} longer than "
                    f"{self.limits[name]} tokens and were cut (TASK_FEATURE_LENGTHS); the longest "
                    f"have {self.longest[name]}."
                )
        if self.shortened:
            yield (
                f"{where}: {self.shortened} of {self.examples} examples were shortened to "
                f"{self.limits['inputs']} tokens of inputs (data.shorten)."
            )
        for name, count in self.empty.items():
            if count:
                yield f"{where}: {count} of {self.examples} examples have empty {name}."
        if self.unspelled:
            text = self.first_unspelled or ""
            text, said = _around_difference(text, vocabulary.decode(vocabulary.encode(text)))
            yield (
                f"{where}: {self.unspelled} of {self.examples} targets don't survive the "
                f"vocabulary, so no answer can equal them; the first is {text!r}, which comes back "
                f"as {said!r}."
            )


def _around_difference(one: str, other: str, before: int = 20, longest: int = 60) -> list[str]:
    """Returns two texts, if they are long only what stands around their first difference."""
    pairs = enumerate(itertools.zip_longest(one, other))
    same = next((place for place, pair in pairs if pair[0] != pair[1]), 0)
    start = max(0, same - before) if max(len(one), len(other)) > longest else 0
    return [
        "..." * (start > 0) + text[start : start + longest] + "..." * (len(text) > start + longest)
        for text in (one, other)
    ]
