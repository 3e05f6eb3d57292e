"""Loads tokenized examples and prints warnings about them."""

import functools

from prompt_tuning.data.split_notes import split_notes
from prompt_tuning.data.tokenized import TokenizedSplit, tokenized
from prompt_tuning.parallel.processes import first_then_all, is_first
from prompt_tuning.recipes.counting import counted
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.task_data import Data


def load_splits(base: Base, data: Data, split: str) -> list[TokenizedSplit]:
    """Returns a split of every task as token ids; prints warnings about its examples."""
    splits = []
    for task in data.tasks:
        tokenize = functools.partial(
            tokenized,
            task,
            split,
            vocabulary=base.vocabulary,
            lengths=data.lengths,
            data_dir=data.data_dir,
            watch=functools.partial(counted, shown=is_first()),
        )
        # Hosts may share a cache, which the first process fills for the others.
        found = first_then_all(tokenize)
        sample = data.sample(split)
        chosen = sample.take(found, task.labels)
        if chosen is not found and is_first():
            say(sample.note(found, chosen))
        for note in split_notes(chosen, base.vocabulary) if is_first() else ():
            say(note)
        splits.append(data.target_form(base.vocabulary).split(chosen))
    return splits
