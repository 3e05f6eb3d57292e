"""The vocabulary pieces nearest to each position of a trained prompt.

Lester et al. 2021, section 7: by cosine, the neighbors of a position form tight lexical or
semantic clusters, and class labels used to initialize a prompt often stay among them; `clusters.py`
measures that.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Array, Float, Int

from prompt_tuning.analysis.similarity import unit_rows
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbor:
    """A vocabulary piece near a prompt position.

    Attributes:
      id: the piece's token id.
      piece: its text.
      value: cosine similarity (higher is nearer), or Euclidean distance (lower is nearer).
    """

    id: int
    piece: str
    value: float


def nearest_neighbors(
    prompt: Float[Array | np.ndarray, "prompt embed"],
    table: Float[Array | np.ndarray, "vocab width"],
    piece_of: Callable[[int], str | None],
    *,
    k: int = 5,
    metric: str = "cosine",
    num_pieces: int | None = None,
) -> list[list[Neighbor]]:
    """Finds the vocabulary pieces nearest to each prompt position, the nearest first.

    Args:
      prompt: the soft prompt.
      table: the frozen model's token embedding.
      piece_of: token id -> text, or None to skip the piece. Of pieces with the same text, only the
        nearest counts.
      k: number of neighbors per position.
      metric: "cosine", the paper's, or "euclidean".
      num_pieces: number of rows of the table that are pieces, since T5 pads its table. If None,
        all rows.

    Returns:
      The k neighbors of each prompt position; ties are in the order of their ids.

    Raises:
      UserError: the widths of prompt and table differ, `k` is out of range, or the metric is
        unknown.
    """
    points = np.asarray(prompt, np.float32)
    rows = np.asarray(table[:num_pieces], np.float32)
    if points.shape[1] != rows.shape[1]:
        raise UserError(
            f"The prompt is {points.shape[1]} wide, but the embedding table is {rows.shape[1]} "
            "wide: the prompt was trained for another model."
        )
    names = [piece_of(i) for i in range(len(rows))]
    distinct = len({name for name in names if name is not None})
    if not 1 <= k <= distinct:
        raise UserError(f"-k is {k}; expected 1 to {distinct}, the number of distinct pieces.")
    values = closeness(points, rows, metric)
    order = np.argsort(-values if metric == "cosine" else values, axis=1, kind="stable")
    return [
        [
            Neighbor(id=i, piece=piece, value=float(values[position, i]))
            for i, piece in _first_distinct(by_nearness, names, k)
        ]
        for position, by_nearness in enumerate(order)
    ]


def closeness(
    points: Float[np.ndarray, "points embed"],
    rows: Float[np.ndarray, "rows embed"],
    metric: str,
) -> Float[np.ndarray, "points rows"]:
    """Returns the cosine similarity or Euclidean distance of each pair of point and row.

    Raises:
      UserError: the metric is unknown.
    """
    if metric == "cosine":
        return unit_rows(points) @ unit_rows(rows).T
    if metric == "euclidean":
        return np.stack([np.linalg.norm(rows - point, axis=1) for point in points])
    raise UserError(f"Unknown metric '{metric}'; expected 'cosine' or 'euclidean'.")


def cleaned(piece: str) -> str | None:
    """Returns a piece as text, without the marker of a word's start.

    Returns None for control pieces, bytes, sentinels and punctuation.
    """
    text = piece.strip("\u2581 ")
    if text.startswith("<") and text.endswith(">"):
        return None
    return text if any(character.isalnum() for character in text) else None


def _first_distinct(
    ids: Int[np.ndarray, "rows"], names: Sequence[str | None], k: int
) -> Iterator[tuple[int, str]]:
    seen = set()
    for i in map(int, ids):
        name = names[i]
        if name is None or name in seen:
            continue
        yield i, name
        seen.add(name)
        if len(seen) == k:
            return


def format_neighbors(neighbors: Sequence[Sequence[Neighbor]]) -> str:
    """Returns a line per prompt position: its index, and its pieces with their values."""
    width = len(str(len(neighbors) - 1))
    return "\n".join(
        f"{position:>{width}}  " + "  ".join(f"{n.piece} {n.value:.2f}" for n in nearest)
        for position, nearest in enumerate(neighbors)
    )
