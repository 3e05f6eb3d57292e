"""A figure of a run's learning curve, from the rows of its `metrics.jsonl`."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prompt_tuning.analysis.figures import (
    COLORS,
    QUIET,
    REFERENCE,
    new_axes,
    new_figure,
    save,
    whole_numbers,
)
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path

Row = Mapping[str, Any]

_SCORE, _LOSS = COLORS[:2]
_LOSS_WINDOWS = 40


def plot_learning_curve(
    rows: Iterable[Row],
    path: str | os.PathLike[str],
    *,
    score: str,
    loss: str = "loss",
    title: str = "",
) -> FilePath:
    """Draws the development score and the training loss against the training step.

    A dashed line shows the score of the untrained prompt, at step 0, and the best score is marked.
    If a step has several rows, as in a resumed run, the last one counts.

    Args:
      rows: each has "step", and `score` or `loss` if measured at that step.
      path: of the PNG.
      score: key of the development metric, such as "eval/accuracy".
      loss: key of the training loss.
      title: of the figure.

    Returns:
      The path of the PNG.

    Raises:
      UserError: no row has the score, or the file can't be written.
    """
    rows = list(rows)
    score_steps, scores = _series(rows, score)
    loss_steps, losses = _series(rows, loss)
    if not len(scores):
        measured = sorted({key for row in rows for key in row} - {"step"})
        raise UserError(
            f"The metrics have no '{score}', so there is no curve to plot; found "
            f"{', '.join(measured) or 'nothing'}."
        )

    figure = new_figure(7.2, 5.2)
    top, bottom = new_axes(figure, 2, sharex=True, height_ratios=(2, 1))
    top.margins(x=0.02)
    if title:
        figure.suptitle(title, fontsize=12)
    _draw_score(top, score_steps, scores)
    top.set_ylabel(f"development {score.rpartition('/')[2].replace('_', ' ')}")
    _draw_loss(bottom, loss_steps, losses)
    bottom.set_ylabel("training loss")
    bottom.set_xlabel("training step")
    whole_numbers(bottom.xaxis)
    return save(figure, as_path(path))


def _series(rows: list[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps at which `key` was measured, in order, and its values."""
    by_step = {row["step"]: row[key] for row in rows if key in row}
    steps = sorted(by_step)
    return np.array(steps), np.array([by_step[step] for step in steps], np.float64)


def _draw_score(axes: Any, steps: np.ndarray, scores: np.ndarray) -> None:
    axes.plot(steps, scores, "o-", color=_SCORE, markersize=4, linewidth=1.8, clip_on=False)
    low, high = scores.min(), scores.max()
    room = 0.12 * max(high - low, 0.05)
    axes.set_ylim(low - room / 2, high + 1.4 * room)
    if low >= 0 and high <= 1:
        # The space above 1 is for the label of the best score.
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= round(tick, 6) <= 1])
    if steps[0] == 0:
        axes.axhline(scores[0], **REFERENCE)
        axes.annotate(
            f"untrained prompt {scores[0]:.3f}",
            (1, scores[0]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=QUIET,
            fontsize=9,
        )
    best = int(scores.argmax())
    on_the_right = steps[best] > (steps[0] + steps[-1]) / 2
    axes.plot(steps[best], scores[best], "o", color=_SCORE, markersize=8, clip_on=False)
    axes.annotate(
        f"best {scores[best]:.3f} at step {steps[best]:,}",
        (steps[best], scores[best]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="right" if on_the_right else "left",
        color=_SCORE,
        fontsize=10,
        fontweight="bold",
    )


def _draw_loss(axes: Any, steps: np.ndarray, losses: np.ndarray) -> None:
    """Draws every loss as a faint line, and means over windows as a strong one."""
    if not len(losses):
        return
    windows = np.array_split(np.arange(len(losses)), min(_LOSS_WINDOWS, len(losses)))
    axes.plot(steps, losses, color=_LOSS, linewidth=0.6, alpha=0.35)
    axes.plot(
        [steps[window].mean() for window in windows],
        [losses[window].mean() for window in windows],
        color=_LOSS,
        linewidth=1.8,
    )
    axes.set_ylim(bottom=0)
