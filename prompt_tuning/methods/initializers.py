"""Initial values of a soft prompt (Lester et al. 2021, section 3.2, figure 3b).

Each function returns an initializer in Flax's form, `(key, shape, dtype) -> array` with shape
[prompt, embed]. These functions take arrays and token ids; `prompt_tuning.recipes.initializers`
encodes text and reads files.

`table` is the frozen model's token embedding, [vocab, embed]. In a T5 table the ordinary pieces are
followed by sentinels and then by unused rows, whose embeddings are of no use here. `num_pieces` is
the number of leading rows to use.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from prompt_tuning.errors import UserError, at_least

Initializer = Callable[[PRNGKeyArray, tuple[int, int], DTypeLike], Float[Array, "prompt embed"]]
Table = Float[Array | np.ndarray, "vocab embed"]
TokenIds = Sequence[int]

MakeInitializer = Callable[[Any], Initializer]
"""A function from the frozen model (`factories.FrozenModel`) to an initializer."""

NUM_PIECES = 5000
"""Sampled vocabulary uses this many of the first, most common, pieces (section 3.2)."""


def random_uniform(low: float = -0.5, high: float = 0.5) -> Initializer:
    """Samples from [low, high). The paper states [-0.5, 0.5]; its code samples from [0, 0.5)."""

    def initialize(
        key: PRNGKeyArray, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "prompt embed"]:
        return jax.random.uniform(key, shape, dtype, low, high)

    return initialize


def sampled_vocabulary(table: Table, num_pieces: int = NUM_PIECES) -> Initializer:
    """Copies the embeddings of pieces sampled from the first `num_pieces`.

    As in the released code, pieces are sampled without replacement unless the prompt is longer
    than `num_pieces`, and the control pieces at the start of the vocabulary (padding, end of
    sequence, unknown) are included. If the table has fewer rows, all are used.

    Raises:
      UserError: `num_pieces` isn't positive; or, when called, the table's width isn't the prompt's.
    """
    at_least(1, {"The number of pieces to sample prompts from": num_pieces})
    num_pieces = min(num_pieces, table.shape[0])

    def initialize(
        key: PRNGKeyArray, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "prompt embed"]:
        length, embed_dim = shape
        _check_width(table, embed_dim)
        return _draw_rows(key, table, num_pieces, length, jnp.dtype(dtype))

    return initialize


def class_label(
    table: Table, label_ids: Sequence[TokenIds], num_pieces: int = NUM_PIECES
) -> Initializer:
    """Initializes position i with label i: the mean of the embeddings of the label's pieces.

    The remaining positions are sampled vocabulary. Labels beyond the prompt's length are ignored,
    with a warning.

    Args:
      table: the frozen model's token embedding.
      label_ids: the pieces of each class label, without end of sequence.
      num_pieces: as in `sampled_vocabulary`.

    Raises:
      UserError: no labels, a label without pieces, or a piece that isn't a row of the table.
    """
    if not label_ids:
        raise UserError(
            "Class-label initialization was given no labels. Set CLASS_LABELS, for example "
            "CLASS_LABELS = ['entailment', 'not_entailment'], or choose another initializer."
        )
    for position, ids in enumerate(label_ids):
        _check_ids(table, ids, f"class label {position}")
    return _starting_with(table, label_ids, num_pieces, "class labels")


def from_string(table: Table, ids: TokenIds, num_pieces: int = NUM_PIECES) -> Initializer:
    """Initializes position i with the embedding of piece i of a text, the rest by sampling.

    Pieces beyond the prompt's length are ignored, with a warning.

    Args:
      table: the frozen model's token embedding.
      ids: the pieces of the text, without end of sequence.
      num_pieces: as in `sampled_vocabulary`.

    Raises:
      UserError: the text has no pieces, or a piece isn't a row of the table.
    """
    _check_ids(table, ids, "the initial text")
    return _starting_with(table, [[token] for token in ids], num_pieces, "pieces of the text")


def from_array(array: Float[Array | np.ndarray, "*axes"]) -> Initializer:
    """Uses a given prompt, such as one loaded from a file or another task's (SPoT).

    Raises:
      UserError: when called for a prompt of another shape.
    """

    def initialize(
        key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "*axes"]:
        del key
        if tuple(array.shape) != tuple(shape):
            raise UserError(
                f"The initial prompt has shape {list(array.shape)}, but the prompt to train is "
                f"{list(shape)} (length, embed). Set PROMPT_LENGTH to {array.shape[0]} if only the "
                "length differs; a prompt of another width belongs to another model."
            )
        return jnp.asarray(array, dtype)

    return initialize


def _starting_with(
    table: Table, groups: Sequence[TokenIds], num_pieces: int, groups_are: str
) -> Initializer:
    """Initializes position i with the mean embedding of `groups[i]`, the rest by sampling."""
    sample = sampled_vocabulary(table, num_pieces)

    def initialize(
        key: PRNGKeyArray, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
    ) -> Float[Array, "prompt embed"]:
        length = shape[0]
        if len(groups) > length:
            warnings.warn(
                f"{len(groups)} {groups_are} don't fit a prompt of {length} positions; only the "
                f"first {length} are used to initialize it.",
                stacklevel=2,
            )
        first = tuple(tuple(map(int, ids)) for ids in groups[:length])
        return _set_means(sample(key, shape, dtype), table, first)

    return initialize


# Jitted as a whole: op by op these compile forty programs, which adds seconds to every start.


@functools.partial(jax.jit, static_argnames=("num_pieces", "length", "dtype"))
def _draw_rows(
    key: PRNGKeyArray, table: Table, num_pieces: int, length: int, dtype: np.dtype
) -> Float[Array, "prompt embed"]:
    rows = jax.random.choice(key, num_pieces, (length,), replace=length > num_pieces)
    return jnp.asarray(table)[rows].astype(dtype)


@functools.partial(jax.jit, static_argnames=("groups",))
def _set_means(
    prompt: Float[Array, "prompt embed"], table: Table, groups: tuple[tuple[int, ...], ...]
) -> Float[Array, "prompt embed"]:
    """Sets position i to the mean embedding of `groups[i]`."""
    for position, ids in enumerate(groups):
        pieces = jnp.asarray(table)[jnp.asarray(ids)]
        prompt = prompt.at[position].set(pieces.astype(prompt.dtype).mean(axis=0))
    return prompt


def _check_width(table: Table, embed_dim: int) -> None:
    if table.shape[1] != embed_dim:
        raise UserError(
            f"The embedding table to initialize from is {table.shape[1]} wide, but the prompt is "
            f"{embed_dim} wide. Use the table and the width of the same model."
        )


def _check_ids(table: Table, ids: TokenIds, whose: str) -> None:
    if len(ids) == 0:
        raise UserError(f"There are no pieces in {whose}; it needs at least one to start from.")
    outside = [int(token) for token in ids if not 0 <= token < table.shape[0]]
    if outside:
        raise UserError(
            f"Piece {outside[0]} of {whose} is outside the model's embedding table of "
            f"{table.shape[0]} rows. The vocabulary doesn't belong to this model."
        )
