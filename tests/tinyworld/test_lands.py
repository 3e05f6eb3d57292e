"""The lands: words of their own that the corpus has, facts that it hasn't, answers in the text."""

import collections
import itertools
import re

import corpus
import pytest

from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.tinyworld_transfer import PAIRS, SIZES
from prompt_tuning.errors import UserError
from prompt_tuning.tinyworld import lands, lexicon
from prompt_tuning.tinyworld.world import Action, World, region_of

TASKS = [f"tinyworld_qa_{land}" for land in lands.LANDS]
PAIR_TASKS = [f"tinyworld_same_{kind}" for kind in PAIRS]
NAMES = dict.fromkeys((*lexicon.PEOPLE, *lexicon.KIND_OF, *lexicon.PLACES))
VERB_OF = {form: verb for verb, forms in lexicon.VERBS.items() for form in (verb, *forms)}


def words(text: str) -> list[str]:
    return re.findall(r"@?\w+", text)


def facts(passage: str) -> list[Action]:
    """Reads the facts back from a passage's sentences."""
    found = []
    for sentence in passage.rstrip(".").split(". "):
        told = words(sentence)
        (person,) = set(told) & set(lexicon.PEOPLE)
        (noun,) = set(told) & set(lexicon.KIND_OF)
        (place,) = set(told) & set(lexicon.PLACES)
        (verb,) = {VERB_OF[word] for word in told if word in VERB_OF}
        found.append(Action(person, verb, noun, place))
    return found


def test_lands_share_no_words():
    for one, other in itertools.combinations(lands.LANDS.values(), 2):
        for field in ("people", "kinds", "places", "verbs", "facts", "who", "what", "where"):
            mine, others = getattr(one, field), getattr(other, field)
            assert not set(mine) & set(others) if isinstance(mine, tuple) else mine != others
    everybody = [person for land in lands.LANDS.values() for person in land.people]
    assert sorted(everybody) == sorted(lexicon.PEOPLE)


def test_every_word_is_one_of_the_corpus():
    some = World("corpus", seed=9)
    told = {
        w.lower() for _ in range(3000) for w in words(corpus.document(some, exercises=0.7).text)
    }
    for task in (*TASKS, *PAIR_TASKS):
        asked = {
            w.lower()
            for e in itertools.islice(get_task(task).examples("train"), 400)
            for w in words(e.inputs)
        }
        assert asked - told <= {"question", "question1", "question2", "sentence1", "sentence2"}


@pytest.mark.parametrize("land", lands.LANDS)
@pytest.mark.parametrize("split", SIZES)
def test_questions_have_their_answer_in_the_passage(land, split):
    asked_for = collections.Counter()
    for row in itertools.islice(lands.questions(land, split), 300):
        told = facts(row["passage"])
        assert {region_of(fact) for fact in told} == {split}
        (fact,) = (
            (f for f in told if row["answer"] in (f.person, f.noun, f.place))
            if (row["answer"] not in lexicon.PLACES)
            else (f for f in told if f.person in words(row["question"]))
        )
        assert row["answer"] in (fact.person, fact.noun, fact.place)
        asked = words(row["question"])
        assert fact.person in asked or fact.kind in asked
        assert row["answer"] not in asked
        asked_for[
            next(n for n in ("person", "noun", "place") if getattr(fact, n) == row["answer"])
        ] += 1
    assert set(asked_for.values()) == {100}


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_are_of_the_same_thing_or_not(kind):
    rows = list(itertools.islice(lands.pairs(PAIRS[kind][0], "train", PAIRS[kind][1]), 200))
    for row in rows:
        first, second = (
            set(words(row[name])) & set(lexicon.KIND_OF) for name in ("first", "second")
        )
        assert (first == second) == (row["label"] == "True")
        assert len(first) == len(second) == 1
        people = [set(words(row[name])) & set(lexicon.PEOPLE) for name in ("first", "second")]
        assert people[0] == people[1] and row["first"] != row["second"]
    assert sum(row["label"] == "True" for row in rows) == 100


@pytest.mark.parametrize("task", [*TASKS, *PAIR_TASKS])
def test_rows_are_the_same_every_time_and_of_their_split(task):
    first = list(get_task(task).examples("train"))
    again = list(itertools.islice(get_task(task).examples("train"), 200))
    assert first[:200] == again and len(first) == SIZES["train"]
    held_out = {example.inputs for example in get_task(task).examples("test")}
    assert not held_out & {example.inputs for example in first}


def test_no_folder_is_read():
    with pytest.raises(
        UserError, match="tinyworld_qa_north are generated, not read; leave out DATA_DIR"
    ):
        next(get_task("tinyworld_qa_north").examples("train", "somewhere"))
