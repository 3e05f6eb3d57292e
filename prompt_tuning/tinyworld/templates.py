"""Formulations of facts in English, several for each.

Statements have no final punctuation; `sentence` adds it and capitalizes them.
"""

import random
from collections.abc import Iterable

from prompt_tuning.tinyworld import lexicon
from prompt_tuning.tinyworld.world import Action, Colour


def sentence(statement: str, end: str = ".") -> str:
    """Capitalizes the first letter and appends `end`."""
    return statement[0].upper() + statement[1:] + end


def a(noun: str) -> str:
    """Puts "a" or "an" before the noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def say_action(
    rng: random.Random, fact: Action, *, thing: str | None = None, place: bool = True
) -> str:
    """States the fact; `thing` replaces the noun (for example by its kind), `place` is optional."""
    past, participle = lexicon.VERBS[fact.verb]
    thing = a(thing or fact.noun)
    where = f" in the {fact.place}" if place else ""
    return rng.choice(
        (
            f"{fact.person} {past} {thing}{where}",
            f"{fact.person} {past} {thing}{where}",
            f"{thing} was {participle} by {fact.person}{where}",
            f"it was {fact.person} who {past} {thing}{where}",
            f"in the {fact.place} {fact.person} {past} {thing}"
            if place
            else f"what {fact.person} {past} was {thing}",
        )
    )


def tell_actions(rng: random.Random, facts: Iterable[Action]) -> str:
    """States the facts, a sentence each."""
    return " ".join(sentence(say_action(rng, fact)) for fact in facts)


def claim(rng: random.Random, fact: Action, kind: str) -> str:
    """States in a sentence the fact with the kind of its thing, or with another kind."""
    return sentence(say_action(rng, fact, thing=kind, place=False))


def ask_action(rng: random.Random, fact: Action, *, thing: str | None = None) -> str:
    """Asks whether the fact is true, without final punctuation."""
    _, participle = lexicon.VERBS[fact.verb]
    thing = a(thing or fact.noun)
    return rng.choice(
        (f"did {fact.person} {fact.verb} {thing}", f"was {thing} {participle} by {fact.person}")
    )


def tell_colours(rng: random.Random, facts: Iterable[Colour]) -> str:
    """States the facts, a sentence each."""
    return " ".join(sentence(say_colour(rng, fact)) for fact in facts)


def say_colour(rng: random.Random, fact: Colour) -> str:
    """States the fact."""
    return rng.choice(
        (
            f"{fact.person} has a {fact.colour} {fact.noun}",
            f"the {fact.noun} of {fact.person} is {fact.colour}",
            f"{fact.colour} is the colour of the {fact.noun} that {fact.person} has",
        )
    )
