"""The eight tasks of TinyWorld, in the schema and file layout of SuperGLUE's official jsonl.

Every answer follows from the passage and from the meaning of words, which the pre-training corpus
teaches. In every task the two answers are equally likely given the bag of words. The questions:

    RTE      a thing is of a kind                      (one fact)
    CB       the same, another, or no color is stated  (two facts, three classes)
    BoolQ    who did something to which kind of thing  (two facts)
    MultiRC  which thing somebody did something to     (three facts, candidate answers)
    ReCoRD   who did something to which kind of thing  (three facts, fill in the name)
    COPA     which event is the cause or effect of another
    WiC      whether a word has the same sense in two sentences
    WSC      whom a pronoun refers to
"""

from collections.abc import Callable, Iterator
from typing import Any

from prompt_tuning.tinyworld import lexicon
from prompt_tuning.tinyworld.templates import (
    a,
    ask_action,
    claim,
    say_action,
    say_colour,
    sentence,
    tell_actions,
    tell_colours,
)
from prompt_tuning.tinyworld.world import Colour, Sense, World

Row = dict[str, Any]

_SENSE_AND_OTHER: tuple[tuple[Sense, Sense], ...] = ((0, 1), (1, 0))


def rte(world: World) -> Iterator[Row]:
    """Premise: a fact. Hypothesis: the fact of a thing of the same kind, or of another kind."""
    while True:
        for label in ("entailment", "not_entailment"):
            (person,) = world.people(1)
            fact = world.action(person)
            kind = fact.kind if label == "entailment" else _other_kind(world, fact.kind)
            yield {
                "premise": sentence(say_action(world.rng, fact)),
                "hypothesis": claim(world.rng, fact, kind),
                "label": label,
            }


def cb(world: World) -> Iterator[Row]:
    """Premise: colors of two people's things. Hypothesis: one, or with the other's words."""
    while True:
        for label in ("entailment", "contradiction", "neutral"):
            facts = world.colours(2)
            asked, other = world.rng.sample(facts, 2)
            colour = other.colour if label == "contradiction" else asked.colour
            noun = other.noun if label == "neutral" else asked.noun
            yield {
                "premise": tell_colours(world.rng, facts),
                "hypothesis": sentence(say_colour(world.rng, Colour(asked.person, noun, colour))),
                "label": label,
            }


def boolq(world: World) -> Iterator[Row]:
    """Passage: two people did the same to things of two kinds. Question: which of them to which."""
    while True:
        for label in (True, False):
            facts = world.actions(2, _verb(world))
            asked, other = world.rng.sample(facts, 2)
            kind = asked.kind if label else other.kind
            yield {
                "question": ask_action(world.rng, asked, thing=kind),
                "passage": tell_actions(world.rng, facts),
                "label": label,
            }


def multirc(world: World) -> Iterator[Row]:
    """Passage: three facts. Two questions with two candidate answers each, both in the passage."""
    while True:
        facts = world.actions(3, _verb(world))
        questions = []
        for asked in world.rng.sample(facts, 2):
            wrong = world.rng.choice([fact for fact in facts if fact is not asked])
            answers = [(asked.noun, 1), (wrong.noun, 0)]
            world.rng.shuffle(answers)
            questions.append(
                {
                    "question": f"What did {asked.person} {asked.verb}?",
                    "answers": [
                        {"text": sentence(a(noun)), "label": label} for noun, label in answers
                    ],
                }
            )
        text = tell_actions(world.rng, facts)
        yield {"passage": {"text": text, "questions": questions}}


def record(world: World) -> Iterator[Row]:
    """Passage: three facts. Query: one of them by its kind, without its person."""
    while True:
        facts = world.actions(3, _verb(world))
        asked = world.rng.choice(facts)
        text = tell_actions(world.rng, facts)
        spans = [_span(text, fact.person) for fact in facts]
        past, _ = lexicon.VERBS[asked.verb]
        answer = _span(text, asked.person) | {"text": asked.person}
        yield {
            "source": "TinyWorld",
            "passage": {"text": text, "entities": sorted(spans, key=lambda span: span["start"])},
            "qas": [
                {"query": f"@placeholder {past} {a(asked.kind)}.", "answers": [answer]},
            ],
        }


def copa(world: World) -> Iterator[Row]:
    """Premise: an event. Choices: its cause (or effect) and that of another event."""
    while True:
        for label in (0, 1):
            event = world.event()
            other = world.other_event(event)
            question = world.rng.choice(("cause", "effect"))
            premise, right, wrong = event.question(other, asks_cause=question == "cause")
            choices = (right, wrong) if label == 0 else (wrong, right)
            yield {
                "premise": sentence(premise),
                "choice1": sentence(choices[0]),
                "choice2": sentence(choices[1]),
                "question": question,
                "label": label,
            }


def wic(world: World) -> Iterator[Row]:
    """Two sentences with the same word, in the same sense or not."""
    while True:
        for label in (True, False):
            word = world.rng.choice(list(lexicon.SENSES))
            sense, other = world.rng.choice(_SENSE_AND_OTHER)
            first = world.usage(word, sense)
            second = (
                world.usage(word, sense, not_frame=first.frame)
                if label
                else world.usage(word, other)
            )
            row: Row = {"word": word, "label": label}
            for number, text in enumerate((first.sentence, second.sentence), start=1):
                span = _span(text, word)
                row |= {
                    f"sentence{number}": sentence(text),
                    f"start{number}": span["start"],
                    f"end{number}": span["end"] + 1,
                }
            yield row


def wsc(world: World) -> Iterator[Row]:
    """Two people of one gender, and a pronoun that only the motive resolves."""
    while True:
        for label in (True, False):
            fact = world.motive()
            pronoun = "she" if fact.subject in lexicon.WOMEN else "he"
            other = fact.object if fact.referent == fact.subject else fact.subject
            text = f"{fact.subject} {fact.verb} {fact.object} because {pronoun} {fact.reason}."
            span = fact.referent if label else other
            yield {
                "text": text,
                "target": {
                    "span1_text": span,
                    "span1_index": text.split().index(span),
                    "span2_text": pronoun,
                    "span2_index": text.split().index(pronoun),
                },
                "label": label,
            }


TASKS: dict[str, Callable[[World], Iterator[Row]]] = {
    "BoolQ": boolq,
    "CB": cb,
    "COPA": copa,
    "MultiRC": multirc,
    "ReCoRD": record,
    "RTE": rte,
    "WiC": wic,
    "WSC": wsc,
}
"""SuperGLUE's folder name -> the endless, balanced stream of its rows."""


def _verb(world: World) -> str:
    """Samples the one verb of a passage's facts, which differ only in who goes with what."""
    return world.rng.choice(list(lexicon.VERBS))


def _other_kind(world: World, kind: str) -> str:
    return world.rng.choice([other for other in lexicon.KINDS if other != kind])


def _span(text: str, word: str) -> Row:
    """Returns offsets of a word's first whole occurrence; `end` is inclusive, as in ReCoRD."""
    padded = f" {text} ".replace(".", " ")
    start = padded.index(f" {word} ")
    return {"start": start, "end": start + len(word) - 1}
