"""Measures of a prompt's nearest neighbors, following Lester et al. 2021, section 7.

Are the neighbors of a position similar to each other? Are the class labels used for initialization
still near? How many positions of a long prompt share their neighbors? Neighbors come from
`neighbors.py`; a table is the frozen model's token embedding without padding rows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from prompt_tuning.analysis.neighbors import Neighbor, closeness
from prompt_tuning.analysis.similarity import unit_rows

Neighbors = Sequence[Sequence[Neighbor]]
"""The neighbors of each prompt position, the nearest first."""

_DRAWS = 1000


def tightness(
    neighbors: Neighbors, table: Float[np.ndarray, "vocab embed"]
) -> Float[np.ndarray, "prompt"]:
    """Returns the mean cosine similarity between the neighbors of each position.

    A single neighbor has similarity 1.
    """
    return np.array(
        [_mean_cosine(table[[neighbor.id for neighbor in nearest]]) for nearest in neighbors]
    )


def tightness_by_chance(table: Float[np.ndarray, "vocab embed"], k: int, *, seed: int = 0) -> float:
    """Returns the tightness of `k` random pieces, the mean of 1,000 samples."""
    rng = np.random.default_rng(seed)
    size = min(k, len(table))
    draws = [rng.choice(len(table), size, replace=False) for _ in range(_DRAWS)]
    return float(np.mean([_mean_cosine(table[ids]) for ids in draws]))


def _mean_cosine(rows: Float[np.ndarray, "rows embed"]) -> float:
    if len(rows) < 2:
        return 1.0
    directions = unit_rows(np.asarray(rows, np.float64))
    pairs = np.triu_indices(len(rows), 1)
    return float((directions @ directions.T)[pairs].mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPersistence:
    """The positions of a trained prompt that are near a class label.

    The rank of a label at a position is the rank of its nearest piece among all vocabulary pieces,
    by distance from the position; 1 is the nearest neighbor.

    Attributes:
      label: the label word.
      start: its position in class-label initialization; None if the prompt is shorter.
      start_rank: the rank at `start`.
      start_cosine: the cosine similarity of that position to its initial value, the mean embedding
        of the label's pieces.
      best_position: the position with the best rank.
      best_rank: the rank at `best_position`.
    """

    label: str
    start: int | None
    start_rank: int | None
    start_cosine: float | None
    best_position: int
    best_rank: int


def label_persistence(
    prompt: Float[np.ndarray, "prompt embed"],
    table: Float[np.ndarray, "vocab embed"],
    labels: Sequence[str],
    label_ids: Sequence[Sequence[int]],
    *,
    metric: str = "cosine",
) -> list[LabelPersistence]:
    """Finds each class label among the neighbors of the positions of a prompt.

    Args:
      prompt: a soft prompt.
      table: the embeddings of the pieces.
      labels: the label words, in the order of initialization.
      label_ids: the token ids of each label.
      metric: "cosine" or "euclidean".

    Raises:
      UserError: the metric is unknown.
    """
    values = closeness(np.asarray(prompt, np.float32), np.asarray(table, np.float32), metric)
    nearness = values if metric == "cosine" else -values
    found = []
    for number, (label, ids) in enumerate(zip(labels, label_ids, strict=True)):
        nearest = nearness[:, list(ids)].max(axis=1)  # [prompt]
        ranks = 1 + np.sum(nearness > nearest[:, None], axis=1)
        best = int(ranks.argmin())
        in_prompt = number < len(prompt)
        initial = table[list(ids)].mean(axis=0)
        found.append(
            LabelPersistence(
                label=label,
                start=number if in_prompt else None,
                start_rank=int(ranks[number]) if in_prompt else None,
                start_cosine=_cosine(prompt[number], initial) if in_prompt else None,
                best_position=best,
                best_rank=int(ranks[best]),
            )
        )
    return found


def repeated_neighbors(neighbors: Neighbors) -> dict[str, list[int]]:
    """Returns the pieces that are nearest to several positions, with those positions.

    The most frequent come first; ties are in the order of the prompt.
    """
    positions: dict[str, list[int]] = {}
    for position, nearest in enumerate(neighbors):
        positions.setdefault(nearest[0].piece, []).append(position)
    repeated = {piece: places for piece, places in positions.items() if len(places) > 1}
    return dict(sorted(repeated.items(), key=lambda item: -len(item[1])))


def distinct_share(neighbors: Neighbors) -> float:
    """Returns the number of distinct nearest neighbors, divided by the number of positions."""
    return len({nearest[0].piece for nearest in neighbors}) / len(neighbors)


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    both = unit_rows(np.stack([x, y]).astype(np.float64))
    return float(both[0] @ both[1])
