"""Learning curves: what is drawn, and what is told when nothing can be."""

import subprocess
import sys

import matplotlib.image
import pytest

from prompt_tuning.analysis import curves
from prompt_tuning.errors import UserError


def run_rows(steps=40):
    for step in range(steps + 1):
        if step:
            yield {"step": step, "loss": 2.0 / step}
        if step % 10 == 0:
            yield {"step": step, "eval/accuracy": 0.5 + 0.01 * step}


def test_a_series_is_in_order_and_a_resumed_step_counts_once():
    rows = [{"step": 2, "a": 2.0}, {"step": 3, "a": 3.0}, {"step": 2, "a": 20.0}, {"step": 1}]
    steps, values = curves._series(rows, "a")
    assert list(steps) == [2, 3] and list(values) == [20.0, 3.0]


def ink(path, color):
    """Counts the pixels of a colour, given as "#rrggbb"."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round()
    return (pixels == wanted).all(-1).sum()


def test_the_picture_shows_score_and_loss(tmp_path):
    rows = list(run_rows())
    both = curves.plot_learning_curve(
        rows, tmp_path / "both.png", score="eval/accuracy", title="a run"
    )
    assert ink(both, curves._SCORE) > 2000 and ink(both, curves._LOSS) > 1000
    assert ink(both, curves.QUIET) > 300  # the untrained prompt's line
    later = [row for row in rows if row["step"] > 0 and "loss" not in row]
    score_only = curves.plot_learning_curve(later, tmp_path / "one.png", score="eval/accuracy")
    assert ink(score_only, curves._SCORE) > 2000 and ink(score_only, curves._LOSS) == 0
    assert ink(score_only, curves.QUIET) < 100


def test_one_point_can_be_drawn(tmp_path):
    rows = [{"step": 0, "eval/accuracy": 0.5}]
    assert curves.plot_learning_curve(rows, tmp_path / "a.png", score="eval/accuracy").exists()


def test_a_score_that_was_never_measured_is_told(tmp_path):
    with pytest.raises(UserError, match=r"'eval/f1'.*found eval/accuracy, loss"):
        curves.plot_learning_curve(run_rows(), tmp_path / "a.png", score="eval/f1")


def test_a_folder_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(UserError, match="Can't write .*a.png"):
        curves.plot_learning_curve(run_rows(), tmp_path / "no" / "a.png", score="eval/accuracy")


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, prompt_tuning.analysis.curves; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
