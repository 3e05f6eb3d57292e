"""The pre-training corpus: its exercises have the answers they should, and no task's format."""

import re

import corpus
import exercises
import pytest

from prompt_tuning.tinyworld import lexicon, world

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
        document = exercises.verify_kinds(some)
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
        document = exercises.verify_colour(some)
        names = next(
            n for n in exercises.JUDGEMENTS if f"{n[0]}, {n[1]} or {n[2]}" in document.context
        )
        answer = names.index(document.continuation)
        colours = re.findall(rf"\b(?:{'|'.join(lexicon.COLOURS)})\b", document.context.lower())
        if answer == 0:
            assert len(colours) - len(set(colours)) == 1
        seen.add(answer)
    assert seen == {0, 1, 2}


def test_verdicts_on_parts_are_true():
    facts = (
        r"(?P<person>\w+) has a (?P<colour>\w+) (?P<noun>\w+)\.",
        r"The (?P<noun>\w+) of (?P<person>\w+) is (?P<colour>\w+)\.",
        r"(?P<colour>\w+) is the colour of the (?P<noun>\w+) that (?P<person>\w+) has\.",
    )
    claims = (
        r"(?P<person>\w+) has a (?P<part>\w+)\.",
        r"The (?P<part>\w+) is that of (?P<person>\w+)\.",
        r"What (?P<person>\w+) has is (?P<part>\w+)\.",
        r"(?P<part>\w+) is what (?P<person>\w+) has\.",
    )
    some = world.World("corpus", seed=8)
    seen = set()
    for _ in range(200):
        document = exercises.verify_part(some)
        holds = [yes for yes, no in exercises.VERDICTS].count(document.continuation) == 1
        told = [m.groupdict() for fact in facts for m in re.finditer(fact, document.context)]
        (claimed,) = (m for claim in claims for m in re.finditer(claim, document.context))
        parts = {
            value.lower()
            for fact in told
            if fact["person"] == claimed["person"]
            for name, value in fact.items()
            if name != "person"
        }
        assert (claimed["part"].lower() in parts) == holds, document
        seen.add((len(told), holds))
    assert seen == {(1, True), (1, False), (2, True), (2, False)}


def test_whom_and_what_is_asked_for_is_told():
    some = world.World("corpus", seed=4)
    for _ in range(200):
        document = exercises.ask_who(some)
        assert document.continuation in lexicon.PEOPLE
        assert document.continuation in document.context


def test_what_is_found_is_told():
    some = world.World("corpus", seed=5)
    for _ in range(200):
        document = exercises.find_kinds(some)
        labels = re.search(r"(\S+) or (\S+): ", document.context).groups()
        asked = re.findall(r"(\w+)\?", document.context)
        words = set(re.findall(r"\w+", document.context))
        told = {lexicon.KIND_OF[word] for word in words & lexicon.KIND_OF.keys()}
        verdicts = [word for word in re.findall(r"\w+", document.continuation) if word in labels]
        assert verdicts == [labels[0 if kind in told else 1] for kind in asked]


def test_recall_answers_with_the_other_word_of_the_pair():
    some = world.World("corpus", seed=6)
    for _ in range(200):
        document = exercises.recall(some)
        pairs = [
            pair.strip()
            for pair in re.sub(r"\w+\?", "", document.context).split(".")
            if pair.strip()
        ]
        asked = re.findall(r"(\w+)\?", document.context)
        for word, answer in zip(asked, document.continuation.split(), strict=True):
            (pair,) = (pair for pair in pairs if word in re.findall(r"\w+", pair))
            assert {word, answer} <= set(re.findall(r"\w+", pair))


def test_a_lesson_has_its_own_exercises_and_rehearses_earlier_ones():
    some = world.World("corpus", seed=7)
    first = [corpus.lesson_document(some, 0) for _ in range(200)]
    assert sum("copy:" in document.context for document in first) > 150
    last = [corpus.lesson_document(some, len(corpus.CURRICULUM) - 1) for _ in range(200)]
    assert sum("copy:" in document.context for document in last) < 100
    assert sum("cause?" in d.context or "effect?" in d.context for d in last) > 20
