"""From predicted text to what is compared, on cases worked by hand."""

import pytest

from prompt_tuning.data.postprocessors import label_index, names_referent, normalize_answer


def test_label_index_is_exact():
    labels = ("entailment", "not_entailment")
    assert label_index("not_entailment", labels) == 1
    for other in ("", "Entailment", "not", "entailment "):
        assert label_index(other, labels) == -1


@pytest.mark.parametrize(
    ("prediction", "referent", "same"),
    [
        ("Mark", "Mark", True),
        ("mark", "Mark", True),
        ("the old man", "The man", True),
        ("man", "the old man", True),
        ("the old dog", "the old man", False),
        ("Bob", "Bob's hat", False),
        ("Bob's hat", "Bob's hat", True),
        ("Bob's", "Bob", False),
        ("Pete", "Mark", False),
        ("", "Mark", None),
        ("  the ", "Mark", None),
    ],
)
def test_names_referent(prediction, referent, same):
    assert names_referent(prediction, referent) is same


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  U.S. Army", "us army"),
        ("a man, an ant; the theatre", "man ant theatre"),
        ("O'Brien", "obrien"),
        ("Al-Qaeda", "alqaeda"),
        ("the", ""),
        ("Beyoncé", "beyoncé"),
    ],
)
def test_normalize_answer(text, normal):
    assert normalize_answer(text) == normal
