"""The scale curve's figure."""

import pytest

from prompt_tuning.analysis import sweep_plots


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a scale curve of models of these sizes, and returns its axes."""
    kept = []

    def keep(figure, axes, path):
        kept.append(axes)
        return path

    monkeypatch.setattr(sweep_plots, "_save", keep)

    def draw(**parameters: int):
        rows = [
            {"method": "prompt tuning", "model": model, "SEED": seed, "score": 0.5 + seed / 10}
            for model in parameters
            for seed in (0, 1)
        ]
        sweep_plots.plot_scale_curve(
            rows, tmp_path / "x.png", parameters=parameters, methods=["prompt tuning"], title=""
        )
        return kept.pop()

    return draw


def test_the_scale_curve_marks_each_model_by_its_size(drawn):
    axes = drawn(large=11_135_332_352, small=76_961_152, tiny=246_528)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["247k", "77M", "11.1B"]


def test_the_scale_curve_draws_means_and_deviations_by_size(drawn):
    (line,) = drawn(large=200, small=100).containers
    points, _, (bars,) = line
    assert list(points.get_xdata()) == [100, 200]
    assert list(points.get_ydata()) == pytest.approx([0.55, 0.55])
    assert bars.get_segments()[0][1, 1] - 0.55 == pytest.approx(0.1 / 2**0.5)
