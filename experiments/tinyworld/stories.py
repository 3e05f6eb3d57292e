"""Stories of TinyWorld: documents that state facts, and state them again in other words.

`exercises.py` has documents with questions and answers; `corpus.py` sets how often each is sampled.
"""

import dataclasses

from prompt_tuning.tinyworld import lexicon
from prompt_tuning.tinyworld.templates import (
    a,
    claim,
    sentence,
    tell_actions,
    tell_colours,
)
from prompt_tuning.tinyworld.world import Action, Motive, World


@dataclasses.dataclass(frozen=True)
class Document:
    """A text in two parts; an exercise's continuation is its answer."""

    context: str
    continuation: str

    @property
    def text(self) -> str:
        return f"{self.context} {self.continuation}"


def word_list(world: World) -> Document:
    """States the kinds of some things."""
    kinds = world.kinds(3)
    facts = [f"{a(world.rng.choice(lexicon.KINDS[kind]))} is {a(kind)}" for kind in kinds]
    return Document(" ".join(map(sentence, facts[:2])), sentence(facts[2]))


def story(world: World) -> Document:
    """States one to three facts, then again with the kinds of their things, in another order."""
    facts = actions(world, size(world))
    told = tell_actions(world.rng, facts)
    again = [claim(world.rng, fact, fact.kind) for fact in world.rng.sample(facts, len(facts))]
    link = world.rng.choice(("So", "That is:", "In other words:", "This means:"))
    return Document(f"{told} {link}", " ".join(again))


def colour_story(world: World) -> Document:
    """States the colors of things, twice."""
    facts = world.colours(size(world))
    told = tell_colours(world.rng, facts)
    return Document(told, tell_colours(world.rng, world.rng.sample(facts, len(facts))))


def event_story(world: World) -> Document:
    """States an event with its cause or effect."""
    event = world.event()
    return world.rng.choice(
        (
            Document(f"{sentence(event.cause)} So", sentence(event.effect)),
            Document(f"{sentence(event.effect, '')} because", sentence(event.cause)),
            Document(f"{sentence(event.cause)} Then", sentence(event.effect)),
        )
    )


def sense_story(world: World) -> Document:
    """Uses a word twice in the same sense."""
    word = world.rng.choice(list(lexicon.SENSES))
    sense = world.rng.choice((0, 1))
    first = world.usage(word, sense)
    second = world.usage(word, sense, not_frame=first.frame)
    return Document(sentence(first.sentence), sentence(second.sentence))


def motive_story(world: World) -> Document:
    """States why somebody did something to another, by name."""
    fact = world.motive()
    return Document(deed(fact) + " because", f"{fact.referent} {fact.reason}.")


def size(world: World) -> int:
    """Samples the number of facts of a document."""
    return world.rng.choice((1, 1, 2, 2, 3, 3))


def actions(world: World, count: int) -> list[Action]:
    """Samples facts of different people and kinds, with one verb or several."""
    return world.actions(count, world.rng.choice((None, world.rng.choice(list(lexicon.VERBS)))))


def deed(fact: Motive) -> str:
    """States what one person did to another, without the reason."""
    return f"{fact.subject} {fact.verb} {fact.object}"
