import pytest

from prompt_tuning.training.early_stopping import Best


def after(*scores):
    best = Best()
    for step, score in enumerate(scores):
        best = best.updated(step, score, {"accuracy": score})
    return best


@pytest.mark.parametrize(
    ("scores", "step", "since"),
    [
        ((0.5,), 0, 0),
        ((0.5, 0.6, 0.55), 1, 1),
        ((0.5, 0.5, 0.5), 0, 2),
        ((0.5, float("nan"), 0.6), 2, 0),
        ((float("nan"), 0.1, float("nan")), 1, 1),
        ((-3.0, -2.0), 1, 0),
    ],
)
def test_best(scores, step, since):
    best = after(*scores)
    assert (best.step, best.evaluations_since) == (step, since)
    assert best.score == scores[step] == best.metrics["accuracy"]


def test_patience():
    assert after(0.5, 0.4).why_stop(2, None) is None
    assert after(0.5, 0.4, 0.4).why_stop(2, None) == "no better score in 2 evaluations"
    assert after(0.5, 0.4, 0.4).why_stop(None, None) is None
    assert Best().why_stop(1, 1.0) is None


def test_the_target_score():
    assert after(0.5, 1.0).why_stop(None, 1.0) == "the score reached 1.0"
    assert after(0.5, 0.99).why_stop(None, 1.0) is None
