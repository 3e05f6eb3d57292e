"""The gap between two methods over the sizes of models, and its trend, with bootstrap intervals.

A hierarchical bootstrap (Davison & Hinkley 1997, section 3.8): tasks are resampled, and within each
drawn task its seeds. The runs of one task aren't independent, so they aren't resampled on their
own. All sizes have the same resampled tasks, because a task's gaps are alike at neighboring sizes.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapTrend:
    """The mean gap at each size, and the slope of a line through them.

    Attributes:
      gaps: the mean over tasks at each size.
      gap_intervals: of each mean.
      slope: by least squares, the change of the gap for a model ten times as large.
      slope_interval: of the slope.
    """

    gaps: list[float]
    gap_intervals: list[Interval]
    slope: float
    slope_interval: Interval


def gap_trend(
    gaps: Float[np.ndarray, "sizes tasks seeds"],
    parameters: Sequence[int],
    *,
    confidence: float = 0.95,
    samples: int = 10_000,
    seed: int = 0,
) -> GapTrend:
    """Returns the trend of a gap.

    Args:
      gaps: one method's score minus another's; NaN for seeds that are missing. At least one seed of
        each size and task is there.
      parameters: number of parameters of each size.
      confidence: share of the bootstrap's samples inside an interval.
      samples: number of the bootstrap's samples.
      seed: of the bootstrap.
    """
    sizes, tasks, seeds = gaps.shape
    rng = np.random.default_rng(seed)
    # Seeds that are there first, so that an index below their number selects one of them.
    present = ~np.isnan(gaps)
    packed = np.take_along_axis(gaps, np.argsort(~present, axis=2, kind="stable"), axis=2)
    counts = present.sum(axis=2)  # [sizes, tasks]

    drawn = np.empty((samples, sizes))
    every_size = np.arange(sizes)[:, None, None]
    for sample in range(samples):
        chosen = rng.integers(tasks, size=tasks)
        count = counts[:, chosen, None]
        places = np.floor(rng.random((sizes, tasks, seeds)) * count).astype(int)
        found = packed[every_size, chosen[None, :, None], places]
        # As many seeds as there are.
        of_tasks = np.where(np.arange(seeds) < count, found, 0.0).sum(axis=2) / count[..., 0]
        drawn[sample] = of_tasks.mean(axis=1)

    decades = np.log10(np.asarray(parameters, float))
    weights = (decades - decades.mean()) / np.sum((decades - decades.mean()) ** 2)
    means = np.nanmean(gaps, axis=2).mean(axis=1)

    def interval(values: Float[np.ndarray, "samples"]) -> Interval:
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        return float(low), float(high)

    return GapTrend(
        gaps=means.tolist(),
        gap_intervals=[interval(of_size) for of_size in drawn.T],
        slope=float(weights @ means),
        slope_interval=interval(drawn @ weights),
    )
