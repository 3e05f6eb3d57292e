"""What a trained prompt resembles: the nearest vocabulary pieces of each of its positions.

Lester et al. 2021, section 7: by cosine, the neighbours of a position form tight lexical or
semantic clusters, and class labels used to initialise a prompt often stay among them.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Array, Float

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
    piece_of: Callable[[int], str],
    *,
    k: int = 5,
    metric: str = "cosine",
    num_pieces: int | None = None,
) -> list[list[Neighbor]]:
    """Finds the vocabulary pieces nearest to each prompt position, the nearest first.

    Args:
      prompt: the soft prompt.
      table: the frozen model's token embedding.
      piece_of: gives the text of a token id.
      k: neighbours a position.
      metric: "cosine", the paper's, or "euclidean".
      num_pieces: only the first so many rows of the table are candidates; T5 pads its table with
        rows that are no piece. None takes all of them.

    Returns:
      For each prompt position its k neighbours; equally near ones come in order of id.

    Raises:
      UserError: the prompt's width isn't the table's, or k or the metric makes no sense.
    """
    points = np.asarray(prompt, np.float32)
    rows = np.asarray(table[:num_pieces], np.float32)
    if points.shape[1] != rows.shape[1]:
        raise UserError(
            f"The prompt is {points.shape[1]} wide, but the embedding table {rows.shape[1]}: "
            "the prompt was trained for another model."
        )
    if not 1 <= k <= len(rows):
        raise UserError(f"Can't find {k} neighbours among {len(rows)} pieces; choose a smaller k.")
    if metric == "cosine":
        values = _normalized(points) @ _normalized(rows).T
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    elif metric == "euclidean":
        values = np.stack([np.linalg.norm(rows - point, axis=1) for point in points])
        order = np.argsort(values, axis=1, kind="stable")[:, :k]
    else:
        raise UserError(f"Unknown metric '{metric}'; expected 'cosine' or 'euclidean'.")
    return [
        [
            Neighbor(id=int(i), piece=piece_of(int(i)), value=float(values[position, i]))
            for i in nearest
        ]
        for position, nearest in enumerate(order)
    ]


def format_neighbors(neighbors: Sequence[Sequence[Neighbor]]) -> str:
    """Returns a line for each prompt position: its index, then each piece with its value."""
    width = len(str(len(neighbors) - 1))
    return "\n".join(
        f"{position:>{width}}  " + "  ".join(f"{n.piece} {n.value:.2f}" for n in nearest)
        for position, nearest in enumerate(neighbors)
    )


def _normalized(rows: Float[np.ndarray, "rows embed"]) -> Float[np.ndarray, "rows embed"]:
    """Scales rows to length 1; a row of zeros, which has no direction, stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)
