"""Facts of TinyWorld, and the split of each.

A fact is a frozen tuple of words from `lexicon.py`. A hash of its words assigns it to exactly one
of the regions `corpus`, `train`, `validation` and `test`, so that tasks never ask about a fact of
the pre-training corpus, and splits share none. A `World` samples facts of one region only.
"""

import dataclasses
import functools
import hashlib
import random
from collections.abc import Callable
from typing import Literal, TypeVar

from prompt_tuning.tinyworld import lexicon

Region = Literal["corpus", "train", "validation", "test"]
Sense = Literal[0, 1]

# The end of each region, in twentieths of the space of facts.
_REGION_ENDS: tuple[tuple[Region, int], ...] = (
    ("corpus", 12),
    ("train", 16),
    ("validation", 18),
    ("test", 20),
)


@dataclasses.dataclass(frozen=True)
class Action:
    """Somebody did something to a thing, somewhere: "Mara bought a robin in the market"."""

    person: str
    verb: str
    noun: str
    place: str

    @property
    def kind(self) -> str:
        return lexicon.KIND_OF[self.noun]


@dataclasses.dataclass(frozen=True)
class Colour:
    """The color of somebody's thing: "Mara's hat is red"."""

    person: str
    noun: str
    colour: str


@dataclasses.dataclass(frozen=True)
class Event:
    """A cause and its effect that happened to somebody."""

    person: str
    index: int

    @property
    def cause(self) -> str:
        return lexicon.EVENTS[self.index][0].format(p=self.person)

    @property
    def effect(self) -> str:
        return lexicon.EVENTS[self.index][1].format(p=self.person)

    def question(self, other: "Event", *, asks_cause: bool) -> tuple[str, str, str]:
        """Returns (the statement, the right answer, the wrong answer, from `other`)."""
        if asks_cause:
            return self.effect, self.cause, other.cause
        return self.cause, self.effect, other.effect


@dataclasses.dataclass(frozen=True)
class Usage:
    """A sentence that uses an ambiguous word in one of its two senses."""

    person: str
    word: str
    sense: Sense
    frame: int

    @property
    def sentence(self) -> str:
        return lexicon.SENSES[self.word][self.sense][self.frame].format(p=self.person)


@dataclasses.dataclass(frozen=True)
class Motive:
    """Somebody did something to another, for a reason that is about one of the two."""

    subject: str
    object: str
    index: int
    about_subject: bool

    @property
    def verb(self) -> str:
        return lexicon.MOTIVES[self.index][0]

    @property
    def reason(self) -> str:
        return lexicon.MOTIVES[self.index][1 if self.about_subject else 2]

    @property
    def referent(self) -> str:
        return self.subject if self.about_subject else self.object


Fact = Action | Colour | Event | Usage | Motive
F = TypeVar("F", Action, Colour, Event, Usage, Motive)


def region_of(fact: Fact) -> Region:
    """Returns the one region the fact belongs to, the same on every machine."""
    words = "|".join((type(fact).__name__, *(str(part) for part in dataclasses.astuple(fact))))
    twentieth = hashlib.sha256(words.encode()).digest()[0] * 20 // 256
    return next(region for region, end in _REGION_ENDS if twentieth < end)


class World:
    """Samples facts of one region, reproducibly.

    Args:
      region: the region; facts of other regions are never returned.
      seed: of the private random stream `rng`, which templates use as well.
    """

    def __init__(self, region: Region, seed: int):
        self.region = region
        self.rng = random.Random(f"{region}/{seed}")

    def _draw(self, propose: Callable[[], F]) -> F:
        while region_of(fact := propose()) != self.region:
            pass
        return fact

    def people(self, count: int) -> list[str]:
        """Samples different people."""
        return self.rng.sample(lexicon.PEOPLE, count)

    def kinds(self, count: int) -> list[str]:
        """Samples different kinds."""
        return self.rng.sample(list(lexicon.KINDS), count)

    def action(self, person: str, *, verb: str | None = None, kind: str | None = None) -> Action:
        choice = self.rng.choice
        return self._draw(
            lambda: Action(
                person,
                verb or choice(list(lexicon.VERBS)),
                choice(lexicon.KINDS[kind or choice(list(lexicon.KINDS))]),
                choice(lexicon.PLACES),
            )
        )

    def actions(self, count: int, verb: str | None) -> list[Action]:
        """Samples facts of different people and kinds, with one verb, or with any if None."""
        return [
            self.action(person, verb=verb, kind=kind)
            for person, kind in zip(self.people(count), self.kinds(count), strict=True)
        ]

    def colours(self, count: int) -> list[Colour]:
        """Samples facts that differ in person, thing and color."""
        facts: list[Colour] = []
        for person in self.people(count):
            facts.append(self._draw(functools.partial(self._new_colour, person, tuple(facts))))
        return facts

    def _new_colour(self, person: str, told: tuple[Colour, ...]) -> Colour:
        nouns = [noun for noun in lexicon.KIND_OF if noun not in {fact.noun for fact in told}]
        colours = [c for c in lexicon.COLOURS if c not in {fact.colour for fact in told}]
        return Colour(person, self.rng.choice(nouns), self.rng.choice(colours))

    def event(self) -> Event:
        choice = self.rng.choice
        return self._draw(lambda: Event(choice(lexicon.PEOPLE), self._event_index()))

    def other_event(self, event: Event) -> Event:
        """Samples a distractor: an event of the same person with another cause, of any region."""
        return Event(event.person, self._event_index(excluding=event.index))

    def _event_index(self, excluding: int | None = None) -> int:
        return self.rng.choice([i for i in range(len(lexicon.EVENTS)) if i != excluding])

    def usage(self, word: str, sense: Sense, *, not_frame: int | None = None) -> Usage:
        choice = self.rng.choice
        frames = [i for i in range(len(lexicon.SENSES[word][sense])) if i != not_frame]
        return self._draw(lambda: Usage(choice(lexicon.PEOPLE), word, sense, choice(frames)))

    def motive(self) -> Motive:
        def propose() -> Motive:
            same_gender = self.rng.choice((lexicon.WOMEN, lexicon.MEN))
            subject, other = self.rng.sample(same_gender, 2)
            index = self.rng.randrange(len(lexicon.MOTIVES))
            return Motive(subject, other, index, self.rng.random() < 0.5)

        return self._draw(propose)
