"""The update of the input's embeddings, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.methods.dept import DePT
from prompt_tuning.models.injection import add_prompt

LENGTH, EMBED, SOURCE = 2, 6, 5


def test_the_update_is_added_by_position_behind_the_prompt():
    numbers = np.random.default_rng(0)
    embedded = jnp.asarray(numbers.normal(size=(3, SOURCE, EMBED)), jnp.float32)
    mask = jnp.arange(SOURCE) < jnp.array([[5], [3], [0]])
    for positions in (3, SOURCE, 9):  # of which the last are unused
        method = DePT(length=LENGTH, embed_dim=EMBED, positions=positions, rank=2)
        trained = method.init(jax.random.key(0), {})
        first, _ = add_prompt(embedded, mask, method.apply(trained, {}))
        np.testing.assert_array_equal(first[:, LENGTH:], embedded)
        params = {**trained["params"], "up": numbers.normal(size=(2, EMBED)).astype(np.float32)}
        found, visible = add_prompt(embedded, mask, method.apply({"params": params}, {}))
        for row in range(3):
            np.testing.assert_array_equal(found[row, :LENGTH], params["prompt"])
            for i in range(SOURCE):
                expected = embedded[row, i]
                if i < positions:
                    expected = expected + np.asarray(params["down"])[i] @ params["up"]
                np.testing.assert_allclose(found[row, LENGTH + i], expected, rtol=1e-5)
        np.testing.assert_array_equal(visible[:, LENGTH:], mask)
