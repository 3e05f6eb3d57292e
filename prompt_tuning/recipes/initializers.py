"""Initializers of prompts, each a function of the frozen model, `Base`."""

import sys
from collections.abc import Sequence
from typing import Any

from prompt_tuning.analysis.similarity import most_similar_first
from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers
from prompt_tuning.methods.factories import choice
from prompt_tuning.parallel.processes import is_first
from prompt_tuning.recipes import user_tasks
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.settings import HashedFiles


@choice
def random_uniform(base: Base, low: float = -0.5, high: float = 0.5) -> initializers.Initializer:
    """The paper's random initialization; its released code samples from [0, 0.5)."""
    del base
    return initializers.random_uniform(low, high)


@choice
def sampled_vocabulary(
    base: Base, num_pieces: int = initializers.NUM_PIECES
) -> initializers.Initializer:
    """The embeddings of pieces sampled from the `num_pieces` most common."""
    return initializers.sampled_vocabulary(_pieces(base), num_pieces)


@choice
def class_label(
    base: Base, labels: Sequence[Any], num_pieces: int = initializers.NUM_PIECES
) -> initializers.Initializer:
    """The embeddings of the label words, then sampled vocabulary: the paper's default."""
    ids = [base.vocabulary.encode(label) for label in user_tasks.words("CLASS_LABELS", labels)]
    return initializers.class_label(_pieces(base), ids, num_pieces)


@choice
def from_string(
    base: Base, text: Any, num_pieces: int = initializers.NUM_PIECES
) -> initializers.Initializer:
    """The embeddings of a text's pieces, then sampled vocabulary."""
    if not isinstance(text, str):
        raise UserError(
            f"PROMPT_TEXT is {text!r}; expected a string, such as 'Is this review good?' (put a "
            "number in quotes)."
        )
    return initializers.from_string(_pieces(base), base.vocabulary.encode(text), num_pieces)


@choice
def from_file(base: Base, path: HashedFiles[str]) -> initializers.Initializer:
    """A prompt file's values: another run's prompt, or another task's (SPoT)."""
    return initializers.from_array(base.load_prompt(path)[0])


@choice
def most_similar(
    base: Base,
    target: HashedFiles[str],
    sources: HashedFiles[Sequence[str]],
    similarity: str = "cosine_of_means",
) -> initializers.Initializer:
    """The prompt among `sources` most similar to `target`, a briefly trained one (SPoT)."""
    prompts = dict(zip(sources, base.source_prompts(sources), strict=True))
    ranked = most_similar_first(base.load_prompt(target)[0], prompts, similarity)
    chosen = next(iter(ranked))
    values = ", ".join(f"{name} {value:.3f}" for name, value in ranked.items())
    if is_first():
        print(
            f"Starting from {chosen}, the most similar to {target} by {similarity} ({values}).",
            file=sys.stderr,
        )
    return initializers.from_array(prompts[chosen])


def _pieces(base: Base) -> Any:
    """Returns the embedding's rows of ordinary pieces, without sentinels and unused rows."""
    return base.embedding[: base.vocabulary.num_pieces]
