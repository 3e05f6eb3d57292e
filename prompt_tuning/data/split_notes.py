"""Warnings about a tokenized split."""

import itertools
import json
from collections.abc import Iterator

import numpy as np

from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.data.vocabularies import Vocabulary


def split_notes(split: TokenizedSplit, vocabulary: Vocabulary) -> Iterator[str]:
    """Yields a line for each possible problem of a split's examples."""
    facts = split.facts
    where = f"{split.task} {split.split}"
    count = len(split)
    for name, cut in facts.cut.items():
        if cut:
            yield (
                f"{where}: {cut} of {count} examples have {name} longer than {facts.limits[name]} "
                "tokens and were truncated (TASK_FEATURE_LENGTHS); the longest have "
                f"{facts.full_lengths[name].max()}."
            )
    if shortened := np.count_nonzero(facts.shortened):
        yield (
            f"{where}: {shortened} of {count} examples were shortened to "
            f"{facts.limits['inputs']} tokens of inputs (data.shorten)."
        )
    for name, lengths in facts.full_lengths.items():
        if empty := np.count_nonzero(lengths == 1):  # only end of sequence
            yield f"{where}: {empty} of {count} examples have empty {name}."
    unspelled = np.flatnonzero(facts.unspelled)
    if len(unspelled):
        text = json.loads(split.metadata_json.splitlines()[unspelled[0]])["targets"]
        text, decoded = _around_difference(text, vocabulary.decode(vocabulary.encode(text)))
        yield (
            f"{where}: {len(unspelled)} of {count} targets change when they are encoded and "
            f"decoded, so no answer can equal them; the first is {text!r}, which becomes "
            f"{decoded!r}."
        )


def _around_difference(one: str, other: str, before: int = 20, longest: int = 60) -> list[str]:
    """Returns two texts; of long ones, only the surroundings of their first difference."""
    pairs = enumerate(itertools.zip_longest(one, other))
    same = next((place for place, pair in pairs if pair[0] != pair[1]), 0)
    start = max(0, same - before) if max(len(one), len(other)) > longest else 0
    return [
        "..." * (start > 0) + text[start : start + longest] + "..." * (len(text) > start + longest)
        for text in (one, other)
    ]
