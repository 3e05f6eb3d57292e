"""The figures of a report on prompts, as PNG; `curves.py` draws learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from prompt_tuning.analysis.figures import (
    COLORS,
    GRID,
    QUIET,
    REFERENCE,
    new_axes,
    new_figure,
    save,
    whole_numbers,
)

_FAR = 10


def plot_norms(
    path: Path,
    prompt: Float[np.ndarray, "prompt"],
    vocabulary: Float[np.ndarray, "vocab"],
) -> Path:
    """Draws the norm of each prompt position over the range of the vocabulary's norms.

    The scale is logarithmic if the norms differ widely: a trained prompt's are often much larger.
    """
    figure = new_figure(7.2, 3.6)
    axes = new_axes(figure)
    low, middle, high = np.quantile(vocabulary, [0.05, 0.5, 0.95])
    axes.axhspan(low, high, color=GRID, label="vocabulary, 5 to 95 %", zorder=0)
    axes.axhline(middle, **REFERENCE, label="its median")
    axes.plot(np.arange(len(prompt)), prompt, "o", color=COLORS[0], markersize=4, label="prompt")
    if max(prompt.max(), high) > _FAR * max(min(prompt.min(), low), 1e-9):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("prompt position")
    axes.set_ylabel("norm")
    whole_numbers(axes.xaxis)
    _legend(figure, axes)
    return save(figure, path)


def plot_removals(
    path: Path,
    *,
    whole: float,
    without: Float[np.ndarray, "prompt"],
    cumulative: Float[np.ndarray, "prompt"],
) -> Path:
    """Draws the score lost without each position, and the score as positions are removed.

    Args:
      path: of the PNG.
      whole: the score of the complete prompt.
      without: the score without position i.
      cumulative: the score with the i + 1 least important positions removed.
    """
    figure = new_figure(7.2, 5.2)
    top, bottom = new_axes(figure, 2)
    positions = np.arange(len(without))
    for axes in (top, bottom):
        whole_numbers(axes.xaxis)
    top.bar(positions, whole - without, color=COLORS[0], width=0.7)
    top.axhline(0, color=QUIET, linewidth=1)
    top.set_ylabel("score lost")
    top.set_xlabel("position removed")
    bottom.axhline(whole, **REFERENCE, label="whole prompt")
    bottom.set_ylabel("score")
    steps = np.arange(len(cumulative) + 1)
    bottom.plot(steps, [whole, *cumulative], "o-", color=COLORS[0], markersize=4, linewidth=1.8)
    bottom.set_xlabel("positions removed, the least important first")
    _legend(figure, bottom)
    return save(figure, path)


def plot_attention(path: Path, mass: Mapping[str, Float[np.ndarray, "_"]], *, even: float) -> Path:
    """Draws the share of attention on the prompt, by layer.

    Args:
      path: of the PNG.
      mass: the share in each layer, by kind of attention.
      even: the share if attention were uniform over visible positions.
    """
    figure = new_figure(7.2, 3.6)
    axes = new_axes(figure)
    for (name, values), color in zip(mass.items(), COLORS, strict=False):
        layers = np.arange(1, len(values) + 1)
        axes.plot(layers, values, "o-", color=color, markersize=5, linewidth=1.8, label=name)
    axes.axhline(even, **REFERENCE, label="if even")
    axes.set_ylim(0, 1)
    axes.set_xlabel("layer")
    axes.set_ylabel("attention on the prompt")
    whole_numbers(axes.xaxis)
    _legend(figure, axes)
    return save(figure, path)


def plot_similarity(
    path: Path, names: Sequence[str], matrix: Float[np.ndarray, "prompts prompts"]
) -> Path:
    """Draws a similarity matrix as a heat map, with its values if there is room."""
    side = min(3.4 + 0.42 * len(names), 14.0)
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    low = min(float(matrix.min()), 0.0)
    image = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=1.0)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.spines[:].set_visible(False)
    if len(names) <= 16:
        middle = (low + 1) / 2
        for (row, column), value in np.ndenumerate(matrix):
            color = "white" if value < middle else "black"
            shown = f"{value:.2f}"
            axes.text(column, row, shown, ha="center", va="center", color=color, fontsize=7)
    figure.colorbar(image, shrink=0.8, label="cosine similarity")
    return save(figure, path)


def plot_projection(
    path: Path,
    names: Sequence[str],
    groups: Sequence[str],
    positions: Sequence[Float[np.ndarray, "_ 2"]],
    explained: Float[np.ndarray, "2"],
) -> Path:
    """Draws every prompt position as a dot, and each prompt's mean with its name.

    Args:
      path: of the PNG.
      names: of the prompts.
      groups: the color group of each prompt, such as its task.
      positions: the coordinates of each prompt's positions.
      explained: the share of the variance along each axis.
    """
    figure = new_figure(7.2, 6.0)
    axes = new_axes(figure)
    order = list(dict.fromkeys(groups))
    seen: set[str] = set()
    means = np.array([points.mean(axis=0) for points in positions])
    for name, group, points, mean in zip(names, groups, positions, means, strict=True):
        color = COLORS[order.index(group) % len(COLORS)]
        axes.plot(*points.T, ".", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        label = None if group in seen else group
        seen.add(group)
        axes.plot(*mean, "o", color=color, markersize=9, markeredgecolor="white", label=label)
        shown = name.removeprefix(f"{group}, ")
        axes.annotate(
            shown, mean, xytext=(7, 4), textcoords="offset points", fontsize=8, color=color
        )
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    for axis, number, share in zip("xy", ("first", "second"), explained, strict=True):
        label = f"{number} principal component ({share:.0%} of the variance)"
        getattr(axes, f"set_{axis}label")(label)
    _legend(figure, axes)
    return save(figure, path)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(labels), 3),
        frameon=False,
        fontsize=9,
    )
