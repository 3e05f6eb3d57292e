"""The trend of a gap, on gaps whose trend is known."""

import numpy as np
import pytest

from prompt_tuning.analysis.trends import gap_trend

PARAMETERS = [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
DECADES = np.log10(PARAMETERS) - 5


def made(slope, *, tasks=8, seeds=3, of_tasks=0.0, of_seeds=0.0, seed=0):
    """Gaps that fall on a line, with a deviation of the tasks' slopes and of the seeds."""
    rng = np.random.default_rng(seed)
    slopes = slope + of_tasks * rng.normal(size=tasks)
    line = 0.5 + DECADES[:, None] * slopes
    return line[..., None] + of_seeds * rng.normal(size=(len(DECADES), tasks, seeds))


def width(interval):
    return interval[1] - interval[0]


def test_a_line_is_found_exactly():
    trend = gap_trend(made(-0.2), PARAMETERS, samples=50)
    assert trend.slope == pytest.approx(-0.2)
    assert trend.slope_interval == pytest.approx((-0.2, -0.2))
    np.testing.assert_allclose(trend.gaps, 0.5 - 0.2 * DECADES)


def test_the_interval_has_the_slope_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        trend = gap_trend(
            made(-0.2, tasks=20, of_tasks=0.1, of_seeds=0.05, seed=seed), PARAMETERS, samples=400
        )
        low, high = trend.slope_interval
        hits += low <= -0.2 <= high
    assert 50 <= hits < 60


def test_more_seeds_of_the_same_tasks_do_not_replace_tasks():
    """If tasks differ and seeds don't, the interval is as wide with thirty seeds as with one."""
    one, thirty = (
        gap_trend(made(-0.2, of_tasks=0.1, seeds=seeds), PARAMETERS, samples=2000)
        for seeds in (1, 30)
    )
    assert width(thirty.slope_interval) == pytest.approx(width(one.slope_interval), rel=0.1)
    of_seeds = gap_trend(made(-0.2, of_seeds=0.1, seeds=30), PARAMETERS, samples=2000)
    assert width(of_seeds.slope_interval) < width(thirty.slope_interval) / 2


def test_missing_seeds_are_not_drawn():
    gaps = made(-0.2, of_tasks=0.1, seeds=3)
    gaps[1, 2, 0] = gaps[3, 4, 1:] = np.nan
    trend = gap_trend(gaps, PARAMETERS, samples=2000)
    whole = gap_trend(made(-0.2, of_tasks=0.1, seeds=3), PARAMETERS, samples=2000)
    assert trend.slope == pytest.approx(whole.slope)
    assert trend.slope_interval == pytest.approx(whole.slope_interval)
