"""The text formats, on cases worked by hand. Parity with T5 is in tasks/test_superglue.py."""

import pytest

from prompt_tuning.data.preprocessors import (
    fields_text,
    fix_wsc_span,
    multirc_text,
    record_text,
    wsc_text,
)


def test_fields_in_the_order_given_and_renamed():
    row = {"sentence1": "A.", "sentence2": "B.", "idx": 3}
    text = fields_text(row, {"hypothesis": "sentence2", "premise": "sentence1"})
    assert text == "hypothesis: B. premise: A."


def test_a_field_that_is_not_text_is_refused():
    with pytest.raises(ValueError, match="field 'premise' is None, expected text"):
        fields_text({"premise": None}, {"premise": "premise"})


def test_multirc_loses_its_markup():
    row = {
        "question": "Who <b>ran</b>?",
        "answer": "Ann",
        "paragraph": "<b>Sent 1: </b>Ann ran.<br><b>Sent 2: </b>Bob <i>sat</i>.<br>",
    }
    assert multirc_text(row) == (
        "question: Who ran? answer: Ann paragraph: Sent 1: Ann ran. Sent 2: Bob <i>sat</i>. "
    )


@pytest.mark.parametrize(
    ("end", "joined"),
    [(".", ". "), ("?", "? "), ("!", "! "), ('"', '" '), ("'", "' "), ("", ". "), (",", ",. ")],
)
def test_record_highlights_become_sentences(end, joined):
    row = {"query": "@placeholder ran", "entities": ["Ann", "Bob"]}
    row["passage"] = f"Ann sat{end}\n@highlight\nBob ran"
    expected = f"query: @placeholder ran entities: Ann, Bob passage: Ann sat{joined}Bob ran"
    assert record_text(row) == expected


def test_record_entities_are_a_list():
    row = {"query": "@placeholder ran", "entities": "Ann, Bob", "passage": "Ann sat."}
    with pytest.raises(ValueError, match="field 'entities' is 'Ann, Bob', expected a list"):
        record_text(row)


def wsc_row(text: str, pronoun: str, index: int) -> dict:
    return {"text": text, "span2_text": pronoun, "span2_index": index}


def test_wsc_marks_the_word_at_the_index():
    row = wsc_row("He said  he ran , he fell.", "he", 6)
    assert wsc_text(row) == "He said  he ran , *he* fell."


def test_wsc_marks_the_last_and_the_first_word():
    assert wsc_text(wsc_row("Ann saw him", "him", 2)) == "Ann saw *him*"
    assert wsc_text(wsc_row("He saw Ann", "He", 0)) == "*He* saw Ann"


# The two published rows that T5's preprocessor lists as special cases, and what it makes of them.
PONY = (
    "The boy continued to whip the pony , and eventually the pony threw him over. "
    'John laughed out quite loud. "Good for him," he said. '
)
PEBBLE = (
    "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic "
    "pebble in an iron safe . Some day they might want to use it , but really for now, what more "
    "could they wish for?"
)


def test_wsc_sets_punctuation_apart_where_it_sticks_to_the_pronoun():
    index = PONY.split(" ").index('him,"')
    assert wsc_text(wsc_row(PONY, "him", index)) == (
        "The boy continued to whip the pony , and eventually the pony threw him over. "
        'John laughed out quite loud. "Good for *him* ," he said.'
    )


def test_wsc_finds_the_pronoun_beside_the_index():
    index = PEBBLE.split(" ").index("use")
    marked = PEBBLE.replace(" use it ,", " use *it* ,")
    assert wsc_text(wsc_row(PEBBLE, "it", index)) == marked


def test_wsc_without_its_pronoun():
    with pytest.raises(ValueError, match="'she' is not a word of the text"):
        wsc_text(wsc_row("He ran.", "she", 0))


@pytest.mark.parametrize(
    ("span", "index", "fixed"),
    [
        ("the cat", 3, "the cat"),
        ("The cat", 3, "the cat"),  # capital
        ("the cat.", 3, "the cat"),  # full stop
        ("the\ncat", 3, "the cat"),  # line break
        ("A dog", 0, "A dog"),
        ("a dog", 0, "A dog"),
        ("the mouse", 3, "the mouse"),  # beyond repair
    ],
)
def test_wsc_spans_are_spelled_as_in_the_text(span, index, fixed):
    assert fix_wsc_span("A dog chased the cat away", span, index) == fixed
