"""JSON of others: all that can be wrong with it is a ValueError."""

import pytest

from prompt_tuning.json_text import parse_json, shown, shown_names


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff", b"[\xff]", "9" * 5000]
)
def test_what_is_not_json(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_what_it_says():
    assert parse_json(b'{"a": [1, "\xc3\xbc", null]}') == {"a": [1, "ü", None]}
    assert parse_json("3") == 3


def test_shown_is_short_and_on_one_line():
    for value in ("x" * 10_000, "a\nb", [1] * 10_000, {str(i): i for i in range(999)}, 10**400):
        text = shown(value)
        assert len(text) < 400 and text.isprintable()
    assert shown_names(["a", "b\n"]) == "a, b\\n"
    assert shown_names(["a"] * 10) == ", ".join("a" * 10)
    assert shown_names(["a"] * 1010) == ", ".join("a" * 10) + ", and 1,000 more"
    assert shown("encoder/layers_0/mlp/wi/kernel") == "'encoder/layers_0/mlp/wi/kernel'"
