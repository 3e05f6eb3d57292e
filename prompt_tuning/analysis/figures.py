"""Common parts of all figures: colors, plain axes, and saving.

matplotlib is imported by the first figure; its global state is not changed.
"""

from typing import Any, TypeVar

from prompt_tuning.files import FilePath, atomic_write

_Path = TypeVar("_Path", bound=FilePath)

COLORS = ("#0b6e99", "#c2571a", "#3a7d44", "#7a4fa3", "#a3333d", "#8a7a00", "#3b4cc0", "#5d6670")
QUIET, GRID = "#666666", "#e6e6e6"
REFERENCE = {"color": QUIET, "linewidth": 1, "linestyle": (0, (5, 3))}
"""The style of a horizontal reference line."""


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure of a size in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def new_axes(figure: Any, rows: int = 1, **options: Any) -> Any:
    """Returns plain axes in `COLORS`, or an array of `rows` of them."""
    import numpy as np

    found = figure.subplots(rows, 1, **options)
    for axes in np.ravel(found):
        axes.set_prop_cycle(color=COLORS)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    return found


def whole_numbers(axis: Any) -> None:
    """Puts ticks at integers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def save(figure: Any, path: _Path) -> _Path:
    """Writes a PNG, without metadata that would differ between runs.

    Raises:
      UserError: the file can't be written.
    """
    with atomic_write(path, fix="Choose another path for the figure.") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    return path
