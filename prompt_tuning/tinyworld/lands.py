"""Three lands of TinyWorld: questions on a passage, in each land's own words and phrasings.

They are a small version of the paper's domain shift experiment (Lester et al., 2021, section 5): a
prompt trained in one land is scored in the others, whose people, things, places, verbs and
phrasings are different. Every word and phrasing occurs in the pre-training corpus, so that a frozen
model knows all of them; the facts themselves don't (see `world.region_of`). A passage states three
facts with one verb. A question asks who, what, or where, which no exercise of the corpus does. The
answer is a word of the passage.
"""

import dataclasses
import functools
import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.tinyworld import lexicon
from prompt_tuning.tinyworld.templates import a, sentence
from prompt_tuning.tinyworld.world import Action, Region, region_of

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Land:
    """The words and phrasings of a land.

    Attributes:
      people: the names of its people.
      kinds: the kinds of its things.
      places: the places of things.
      verbs: the verbs of actions on things.
      facts: phrasings of a fact, with {person}, {past}, {participle}, {thing} and {place}.
      who: the question for the person, with the {thing}'s kind.
      what: the question for the thing, with the person.
      where: the question for the place, with both.
    """

    people: tuple[str, ...]
    kinds: tuple[str, ...]
    places: tuple[str, ...]
    verbs: tuple[str, ...]
    facts: tuple[str, ...]
    who: str
    what: str
    where: str

    def action(
        self, rng: random.Random, split: Region, person: str, verb: str, kind: str
    ) -> Action:
        """Samples a fact of a split, which must have one (`has_fact`)."""
        while True:
            noun, place = rng.choice(lexicon.KINDS[kind]), rng.choice(self.places)
            fact = Action(person, verb, noun, place)
            if region_of(fact) == split:
                return fact

    def has_fact(self, split: Region, person: str, verb: str, kind: str) -> bool:
        """Returns whether a split has any such fact in the land."""
        return split in _splits(person, verb, kind, self.places)


@functools.cache
def _splits(person: str, verb: str, kind: str, places: tuple[str, ...]) -> frozenset[Region]:
    facts = itertools.product(lexicon.KINDS[kind], places)
    return frozenset(region_of(Action(person, verb, *fact)) for fact in facts)


def _share(words: Mapping[str, Any] | tuple[str, ...], number: int) -> tuple[str, ...]:
    """Returns every third word, from the word at index `number`."""
    return tuple(words)[number :: len(_PHRASINGS)]


_PHRASINGS: dict[str, tuple[tuple[str, ...], str, str, str]] = {
    "north": (
        ("{person} {past} {thing} in the {place}",),
        "Who {past} {thing}?",
        "What did {person} {verb}?",
        "{person} {past} {thing} in the what?",
    ),
    "south": (
        ("{thing} was {participle} by {person} in the {place}",),
        "By whom was {thing} {participle}?",
        "What was {participle} by {person}?",
        "in the what was {thing} {participle} by {person}?",
    ),
    "east": (
        (
            "it was {person} who {past} {thing} in the {place}",
            "in the {place} {person} {past} {thing}",
        ),
        "@placeholder {past} {thing}.",
        "{person} {past} @placeholder.",
        "in the @placeholder {person} {past} {thing}.",
    ),
}

LANDS: dict[str, Land] = {
    name: Land(
        people=(*_share(lexicon.WOMEN, number), *_share(lexicon.MEN, number)),
        kinds=_share(lexicon.KINDS, number),
        places=_share(lexicon.PLACES, number),
        verbs=_share(lexicon.VERBS, number),
        facts=facts,
        who=who,
        what=what,
        where=where,
    )
    for number, (name, (facts, who, what, where)) in enumerate(_PHRASINGS.items())
}
"""The lands by name; no two share a person, thing, place, verb or phrasing."""


def questions(name: str, split: Region) -> Iterator[Row]:
    """Yields a reproducible endless stream of rows with "question", "passage" and "answer"."""
    land = LANDS[name]
    rng = random.Random(f"questions of {name}/{split}")
    phrasings = ((land.who, "person"), (land.what, "noun"), (land.where, "place"))
    for phrasing, asked_for in itertools.cycle(phrasings):
        while True:
            verb = rng.choice(land.verbs)
            people, kinds = rng.sample(land.people, 3), rng.sample(land.kinds, 3)
            told_of = list(zip(people, kinds, strict=True))
            if all(land.has_fact(split, person, verb, kind) for person, kind in told_of):
                break
        facts = [land.action(rng, split, person, verb, kind) for person, kind in told_of]
        asked = rng.choice(facts)
        told = [sentence(_said(rng.choice(land.facts), fact, fact.noun)) for fact in facts]
        question = _said(phrasing, asked, asked.kind)
        yield {
            "question": question[0].upper() + question[1:],
            "passage": " ".join(told),
            "answer": getattr(asked, asked_for),
        }


def pairs(name: str, split: Region, phrasings: tuple[str, ...]) -> Iterator[Row]:
    """Yields rows with "first", "second" and "label": whether both state the same fact.

    If not, they are about different things. Both labels are equally likely.

    Args:
      name: the land.
      split: the split of the facts.
      phrasings: whole sentences, with the fields of a land's `facts`; those of a pair differ.
    """
    # No place is stated, so with several places, the same words would be in several splits.
    land = dataclasses.replace(LANDS[name], places=LANDS[name].places[:1])
    rng = random.Random(f"pairs of {name}/{split}")
    for label in itertools.cycle(("True", "False")):
        while True:
            kinds = rng.sample(land.kinds, 2)
            person, verb = rng.choice(land.people), rng.choice(land.verbs)
            if all(land.has_fact(split, person, verb, kind) for kind in kinds):
                break
        fact, other = (land.action(rng, split, person, verb, kind) for kind in kinds)
        thing = (fact if label == "True" else other).noun
        first, second = rng.sample(phrasings, 2)
        said = [_said(first, fact, fact.noun), _said(second, fact, thing)]
        rng.shuffle(said)
        said = [text[0].upper() + text[1:] for text in said]
        yield {"first": said[0], "second": said[1], "label": label}


def _said(phrasing: str, fact: Action, thing: str) -> str:
    past, participle = lexicon.VERBS[fact.verb]
    return phrasing.format(
        person=fact.person,
        verb=fact.verb,
        past=past,
        participle=participle,
        thing=a(thing),
        place=fact.place,
    )
