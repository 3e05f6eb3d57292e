"""Initializers of prompts, each a function of the frozen model, `Base`."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_tuning.analysis.similarity import most_similar_first
from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.checkpoints.arrays.stored_arrays import read_parameters
from prompt_tuning.checkpoints.frozen.load import stored_frozen
from prompt_tuning.errors import UserError, at_least
from prompt_tuning.methods import initializers
from prompt_tuning.methods.factories import choice
from prompt_tuning.methods.recycling import recycle
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
def combined(
    base: Base, sources: HashedFiles[Sequence[str]], weights: Sequence[float | int] | None = None
) -> initializers.Initializer:
    """The sum of prompts times their weights, which may be negative; None: their mean."""
    prompts = base.source_prompts(sources)
    weights = [1 / len(prompts)] * len(prompts) if weights is None else weights
    if len(weights) != len(prompts):
        raise UserError(
            f"combined.weights has {len(weights)} entries for {len(prompts)} prompts; give one "
            "for each."
        )
    return initializers.from_array(np.tensordot(np.asarray(weights, np.float32), prompts, 1))


@choice
def recycled(
    base: Base, path: HashedFiles[str], model: str, variant: str = "v2v-lin"
) -> initializers.Initializer:
    """A prompt of `model`, another model with the same vocabulary (prompt recycling)."""
    stored = stored_frozen(model)
    name = "token_embedder/embedding"
    (table,) = read_parameters({name: stored.parameters[name]}, "float32").values()
    prompt, _ = load_prompt(
        path, (None, stored.config.embed_dim), vocabulary_hash=base.vocabulary.hash
    )
    pieces = base.vocabulary.num_pieces
    if len(table) < pieces:
        raise UserError(
            f"{model} has {len(table)} embeddings for the {pieces} pieces of the vocabulary of "
            f"{base.config.name}; prompts are recycled between models of one vocabulary."
        )
    source = np.asarray(table[:pieces]) * stored.config.embedding_scale
    return initializers.from_array(recycle(prompt, source, _pieces(base), variant))


@choice
def most_similar(
    base: Base,
    target: HashedFiles[str],
    sources: HashedFiles[Sequence[str]],
    similarity: str = "cosine_of_means",
    top: int = 1,
) -> initializers.Initializer:
    """The prompt among `sources` most similar to `target`, a briefly trained one (SPoT).

    Or the mean of the `top` most similar ones, weighted by their similarities.
    """
    at_least(1, {"most_similar.top": top})
    prompts = dict(zip(sources, base.source_prompts(sources), strict=True))
    ranked = most_similar_first(base.load_prompt(target)[0], prompts, similarity)
    chosen = list(ranked)[:top]
    values = ", ".join(f"{name} {value:.3f}" for name, value in ranked.items())
    if is_first():
        print(
            f"Starting from {' and '.join(chosen)}, the most similar to {target} by {similarity} "
            f"({values}).",
            file=sys.stderr,
        )
    if len(chosen) == 1:
        return initializers.from_array(prompts[chosen[0]])
    shares = np.maximum([ranked[name] for name in chosen], 0)
    if not shares.sum():
        raise UserError(f"No prompt of {', '.join(chosen)} is similar to {target} ({values}).")
    averaged = np.tensordot(
        np.asarray(shares / shares.sum(), np.float32), [prompts[name] for name in chosen], 1
    )
    return initializers.from_array(averaged)


def _pieces(base: Base) -> Any:
    """Returns the embedding's rows of ordinary pieces, without sentinels and unused rows."""
    return base.embedding[: base.vocabulary.num_pieces]
