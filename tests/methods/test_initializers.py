"""Each initializer against its definition, on a small table and on the error cases."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers

VOCAB, EMBED = 50, 6
KEY = jax.random.key(3)


@pytest.fixture
def table():
    return np.random.default_rng(0).normal(size=(VOCAB, EMBED)).astype(np.float32)


def rows_of(prompt, table):
    """Returns which row of the table each position is, failing where it is none."""
    matches = (np.asarray(prompt)[:, None] == table[None]).all(-1)
    assert matches.any(axis=1).all(), "a position isn't a row of the table"
    return matches.argmax(axis=1)


def test_random_uniform_is_the_papers_range():
    prompt = initializers.random_uniform()(KEY, (400, EMBED), jnp.float32)
    assert prompt.shape == (400, EMBED) and prompt.dtype == jnp.float32
    assert -0.5 <= prompt.min() < -0.48 and 0.48 < prompt.max() < 0.5
    assert abs(prompt.mean()) < 0.02


def test_random_uniform_can_be_the_released_codes_range():
    prompt = initializers.random_uniform(0.0, 0.5)(KEY, (400, EMBED), jnp.float32)
    assert 0.0 <= prompt.min() < 0.02 and 0.48 < prompt.max() < 0.5


def test_sampled_vocabulary_copies_distinct_common_pieces(table):
    prompt = initializers.sampled_vocabulary(table, num_pieces=10)(KEY, (10, EMBED), jnp.float32)
    assert sorted(rows_of(prompt, table)) == list(range(10))


def test_sampled_vocabulary_draws_again_when_the_prompt_is_longer(table):
    prompt = initializers.sampled_vocabulary(table, num_pieces=4)(KEY, (40, EMBED), jnp.float32)
    assert set(rows_of(prompt, table)) == set(range(4))


def test_sampled_vocabulary_draws_from_the_whole_of_a_small_table(table):
    prompt = initializers.sampled_vocabulary(table)(KEY, (VOCAB, EMBED), jnp.float32)
    assert sorted(rows_of(prompt, table)) == list(range(VOCAB))


def test_initial_values_depend_on_the_key_alone(table):
    initialize = initializers.sampled_vocabulary(table)
    first = initialize(KEY, (8, EMBED), jnp.float32)
    assert (first == initialize(KEY, (8, EMBED), jnp.float32)).all()
    assert (first != initialize(jax.random.key(4), (8, EMBED), jnp.float32)).any()


def test_class_label_is_the_mean_over_pieces_then_sampled_vocabulary(table):
    initialize = initializers.class_label(table, [[7], [20, 21, 30]], num_pieces=5)
    prompt = initialize(KEY, (6, EMBED), jnp.float32)
    np.testing.assert_array_equal(prompt[0], table[7])
    np.testing.assert_allclose(prompt[1], (table[20] + table[21] + table[30]) / 3, rtol=1e-6)
    assert (rows_of(prompt[2:], table) < 5).all()


def test_class_labels_that_do_not_fit_are_left_out_with_a_warning(table):
    initialize = initializers.class_label(table, [[7], [8], [9]])
    with pytest.warns(UserWarning, match="only the first 2"):
        prompt = initialize(KEY, (2, EMBED), jnp.float32)
    assert list(rows_of(prompt, table)) == [7, 8]


def test_string_is_its_pieces_then_sampled_vocabulary(table):
    prompt = initializers.from_string(table, [9, 8, 9], num_pieces=5)(KEY, (5, EMBED), jnp.float32)
    rows = rows_of(prompt, table)
    assert list(rows[:3]) == [9, 8, 9] and (rows[3:] < 5).all()


def test_string_that_just_fits_does_not_warn(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        initializers.from_string(table, [1, 2])(KEY, (2, EMBED), jnp.float32)


def test_a_bfloat16_table_gives_a_float32_prompt(table):
    low = jnp.asarray(table, jnp.bfloat16)
    prompt = initializers.class_label(low, [[3, 4]])(KEY, (2, EMBED), jnp.float32)
    assert prompt.dtype == jnp.float32
    mean = low[3:5].astype(jnp.float32).mean(axis=0)
    np.testing.assert_array_equal(prompt[0], mean)


def test_array_starts_where_it_is_told():
    array = np.arange(12, dtype=np.float32).reshape(2, 6)
    prompt = initializers.from_array(array)(KEY, (2, 6), jnp.float32)
    np.testing.assert_array_equal(prompt, array)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: initializers.sampled_vocabulary(t, num_pieces=0), "must be at least 1"),
        (lambda t: initializers.class_label(t, []), "CLASS_LABELS"),
        (lambda t: initializers.class_label(t, [[1], []]), "no pieces in class label 1"),
        (lambda t: initializers.class_label(t, [[VOCAB]]), "outside the model's embedding table"),
        (lambda t: initializers.from_string(t, []), "no pieces in the initial text"),
        (lambda t: initializers.from_string(t, [3, -1]), "outside the model's embedding table"),
    ],
)
def test_a_mistake_is_told_when_the_initialiser_is_made(table, make, message):
    with pytest.raises(UserError, match=message):
        make(table)


def test_a_table_of_another_width_is_refused(table):
    with pytest.raises(UserError, match="6 wide, but the prompt is 8 wide"):
        initializers.sampled_vocabulary(table)(KEY, (4, 8), jnp.float32)


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(UserError, match="Set PROMPT_LENGTH to 2"):
        initializers.from_array(np.zeros((2, 6), np.float32))(KEY, (3, 6), jnp.float32)
