"""The pre-training corpus: its exercises have the answers they should, and no task's format."""

import re

import pytest

from prompt_tuning.data.tinyworld import corpus, lexicon, world

ALL = dict.fromkeys((*corpus.STORIES, *corpus.EXERCISES))


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_documents_are_the_same_every_time(make):
    first, again = world.World("corpus", seed=5), world.World("corpus", seed=5)
    assert [make(first) for _ in range(5)] == [make(again) for _ in range(5)]


def test_no_document_has_a_tasks_format():
    # As in tasks/superglue.py: field names in its order.
    formats = (
        r"hypothesis: .* premise: ",
        r"^passage: .* question: ",
        r"question: .* passage: ",
        r"choice1: .* choice2: .* premise: ",
        r"sentence1: ",
        r"query: ",
        r"paragraph: ",
    )
    some = world.World("corpus", seed=1)
    for _ in range(5000):
        text = corpus.document(some, exercises=0.7).text
        assert not any(re.search(pattern, text) for pattern in formats), text


def test_verdicts_on_kinds_are_true():
    some = world.World("corpus", seed=2)
    for _ in range(200):
        document = corpus.verify_kinds(some)
        labels, claims = re.fullmatch(r"(\S+ or \S+): (.*)", document.context).groups()
        holds_label = labels.split(" or ")[0]
        said = re.findall(r"An? (\w+) is an? (\w+)\.", claims)
        verdicts = document.continuation.split()
        assert len(said) == len(verdicts)
        for (noun, kind), verdict in zip(said, verdicts, strict=True):
            assert (lexicon.KIND_OF[noun] == kind) == (verdict == holds_label)


def test_judgements_on_colours_are_true():
    some = world.World("corpus", seed=3)
    seen = set()
    for _ in range(300):
        document = corpus.verify_colour(some)
        names = next(
            n for n in corpus.JUDGEMENTS if f"{n[0]}, {n[1]} or {n[2]}" in document.context
        )
        answer = names.index(document.continuation)
        colours = re.findall(rf"\b(?:{'|'.join(lexicon.COLOURS)})\b", document.context.lower())
        if answer == 0:
            assert len(colours) - len(set(colours)) == 1
        seen.add(answer)
    assert seen == {0, 1, 2}


def test_whom_and_what_is_asked_for_is_told():
    some = world.World("corpus", seed=4)
    for _ in range(200):
        document = corpus.ask_who(some)
        assert document.continuation in lexicon.PEOPLE
        assert document.continuation in document.context
