"""The similarity of prompts of different tasks and seeds, and their projection to a plane.

Vu et al. 2022 (SPoT, section 4) compare prompts by two measures, both implemented here: the cosine
of their mean vectors, and the mean cosine over all pairs of their positions. SPoT also initializes
a new task's prompt with that of the most similar task.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Array, Float

from prompt_tuning.errors import UserError, did_you_mean

Prompts = Sequence[Float[np.ndarray, "_ embed"]]
"""Prompts of one model; their lengths may differ."""

MEASURES = ("mean", "positions")

SPOT_MEASURES = {"cosine_of_means": "mean", "mean_of_cosines": "positions"}
"""Names of the measures in configurations -> names in `similarity_matrix`."""


def similarity_matrix(
    prompts: Prompts, measure: str = "mean"
) -> Float[np.ndarray, "prompts prompts"]:
    """Returns the cosine similarity of each pair of prompts.

    Args:
      prompts: of one model.
      measure: "mean", of the mean vectors; or "positions", the mean over all pairs of positions,
        for which the diagonal is below 1.

    Raises:
      UserError: the measure is unknown, or the prompts differ in width.
    """
    if measure not in MEASURES:
        raise UserError(
            f"Unknown measure '{measure}'; expected 'mean' or 'positions'."
            f"{did_you_mean(measure, MEASURES)}"
        )
    _check_widths(prompts)
    if measure == "mean":
        means = unit_rows(np.array([prompt.mean(axis=0, dtype=np.float64) for prompt in prompts]))
        return means @ means.T
    # The mean of the cosines of all pairs is the product of the means of the unit vectors.
    directions = np.array([unit_rows(p.astype(np.float64)).mean(axis=0) for p in prompts])
    return directions @ directions.T


def most_similar_first(
    target: Float[Array | np.ndarray, "_ embed"],
    sources: Mapping[str, Float[Array | np.ndarray, "_ _"]],
    similarity: str = "cosine_of_means",
) -> dict[str, float]:
    """Returns the similarity of each source to the target, by name, the most similar first.

    Raises:
      UserError: the measure is unknown, there is no source, or a source has another width.
    """
    if similarity not in SPOT_MEASURES:
        raise UserError(
            f"The similarity of source prompts is '{similarity}'; expected "
            f"{' or '.join(SPOT_MEASURES)}."
        )
    if not sources:
        raise UserError("There are no source prompts to choose from; set SOURCE_PROMPTS.")
    for name, prompt in sources.items():
        if prompt.shape[1] != target.shape[1]:
            raise UserError(
                f"The prompt {name} is {prompt.shape[1]} wide, and the target task's is "
                f"{target.shape[1]}; compare prompts of one model."
            )
    prompts = [np.asarray(prompt) for prompt in (target, *sources.values())]
    found = similarity_matrix(prompts, SPOT_MEASURES[similarity])[0, 1:]
    pairs = zip(sources, map(float, found), strict=True)
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def within_and_between(
    matrix: Float[np.ndarray, "prompts prompts"], groups: Sequence[str]
) -> tuple[float | None, float | None]:
    """Returns the mean similarity of pairs within a group, and of pairs between groups.

    A mean is None if there is no such pair.
    """
    within, between = [], []
    for i, j in combinations(range(len(groups)), 2):
        (within if groups[i] == groups[j] else between).append(float(matrix[i, j]))
    return _mean(within), _mean(between)


def project(
    prompts: Prompts,
) -> tuple[list[Float[np.ndarray, "_ 2"]], Float[np.ndarray, "2"]]:
    """Projects all positions of all prompts onto their two principal components.

    Positions are scaled to length 1 first, so that only direction counts, as in the cosine.

    Returns:
      The coordinates of each prompt's positions, and the share of the variance along each axis.

    Raises:
      UserError: the prompts differ in width.
    """
    _check_widths(prompts)
    rows = np.concatenate([unit_rows(prompt) for prompt in prompts]).astype(np.float64)
    centered = rows - rows.mean(axis=0)
    _, values, axes = np.linalg.svd(centered, full_matrices=False)
    places = np.zeros((len(rows), 2))
    shares = np.zeros(2)
    dimensions = min(2, len(values))
    # The sign of a component is arbitrary: the largest entry is made positive.
    axes = axes[:dimensions]
    largest = axes[np.arange(dimensions), np.abs(axes).argmax(axis=1)]
    places[:, :dimensions] = centered @ (axes * np.sign(largest)[:, None]).T
    total = float(np.sum(values**2))
    if total > 0:
        shares[:dimensions] = values[:dimensions] ** 2 / total
    ends = np.cumsum([len(prompt) for prompt in prompts])[:-1]
    return np.split(places, ends), shares


def unit_rows(rows: Float[np.ndarray, "rows embed"]) -> Float[np.ndarray, "rows embed"]:
    """Scales rows to length 1; a row of zeros, which has no direction, stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def _check_widths(prompts: Prompts) -> None:
    widths = sorted({prompt.shape[1] for prompt in prompts})
    if len(widths) > 1:
        raise UserError(
            f"The prompts are {' and '.join(map(str, widths))} wide: they belong to different "
            "models and can't be compared."
        )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
