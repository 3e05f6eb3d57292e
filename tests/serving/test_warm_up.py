"""A server's first questions find their programs compiled."""

from prompt_tuning import Example
from prompt_tuning.serving.warm_up import warm_up


def test_single_questions_meet_no_new_shape(predictor, folder):
    warm_up(predictor, 64)
    compiled = predictor.shapes
    for name in ("rte", "wic", "wsc"):
        predictor.predict([Example(prompt=name, inputs="a b a")])
        predictor.predict([Example(prompt=name, inputs="a b", labels=("a b", "b"))])
        predictor.predict([Example(prompt=name, inputs="a " * 50)])
    assert predictor.shapes == compiled
