"""Every picture is a PNG that shows something, and a failure to write it is told."""

import numpy as np
import pytest

from prompt_tuning.analysis import pictures
from prompt_tuning.errors import UserError

RNG = np.random.default_rng(0)
MATRIX = np.corrcoef(RNG.normal(size=(4, 6)))
DRAW = {
    "norms": lambda path: pictures.plot_norms(path, RNG.uniform(20, 40, 10), RNG.uniform(1, 2, 90)),
    "removals": lambda path: pictures.plot_removals(
        path, whole=0.8, without=RNG.uniform(0.6, 0.8, 5), cumulative=np.linspace(0.8, 0, 5)
    ),
    "attention": lambda path: pictures.plot_attention(
        path, {"encoder": RNG.uniform(size=3), "decoder": RNG.uniform(size=2)}, even=0.3
    ),
    "similarity": lambda path: pictures.plot_similarity(path, ["a", "b", "c", "d"], MATRIX),
    "projection": lambda path: pictures.plot_projection(
        path,
        ["a", "b"],
        ["rte", "cb"],
        [RNG.normal(size=(3, 2)), RNG.normal(size=(5, 2))],
        np.array([0.5, 0.2]),
    ),
}


@pytest.mark.parametrize("name", DRAW)
def test_picture_shows_something(name, tmp_path):
    from matplotlib.image import imread

    pixels = imread(DRAW[name](tmp_path / f"{name}.png"))
    assert pixels.shape[0] > 300 and len(np.unique(pixels.reshape(-1, 4), axis=0)) > 50


def test_a_folder_that_is_missing_is_told(tmp_path):
    with pytest.raises(UserError, match="Can't write"):
        DRAW["similarity"](tmp_path / "none" / "similarity.png")
