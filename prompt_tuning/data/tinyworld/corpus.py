"""The pre-training corpus: short documents told of the corpus's own facts.

A document has a context and a continuation. Span corruption (Raffel et al., 2020, section 3.1.4)
reads them as one text; LM adaptation (Lester et al., 2021, section 3.1) reads the context and
predicts the continuation. There are stories, which tell facts and tell them again in other
words, word lists, and exercises, which ask and answer in many phrasings with many label words.

None of the eight tasks' own formats occurs: the fields of `tasks/superglue.py` never appear in
its order and under its names, and no fact of a task's split is told (see `world.region_of`).
"""

import dataclasses
from collections.abc import Callable

from prompt_tuning.data.tinyworld import lexicon
from prompt_tuning.data.tinyworld.templates import a, ask_action, say_action, say_colour, sentence
from prompt_tuning.data.tinyworld.world import Action, Colour, Motive, World


@dataclasses.dataclass(frozen=True)
class Document:
    """A text in two parts; an exercise's continuation is its answer."""

    context: str
    continuation: str

    @property
    def text(self) -> str:
        return f"{self.context} {self.continuation}"


# (holds, does not hold), named in the instruction that asks for them.
VERDICTS = (
    ("yes", "no"),
    ("true", "false"),
    ("right", "wrong"),
    ("True", "False"),
    ("entailment", "not_entailment"),
)
# (first, second) of two choices.
ORDINALS = (("first", "second"), ("one", "two"), ("choice1", "choice2"))
# (holds, cannot hold, is not told).
JUDGEMENTS = (
    ("yes", "no", "unknown"),
    ("true", "false", "maybe"),
    ("entailment", "contradiction", "neutral"),
)
# Names of the fields of an exercise: (what is told, what is asked).
FIELDS = (
    ("text", "claim"),
    ("story", "statement"),
    ("premise", "conclusion"),
    ("passage", "claim"),
    ("fact", "hypothesis"),
    ("sentence", "conclusion"),
)


def word_list(world: World) -> Document:
    """Says what kinds some things are."""
    kinds = world.kinds(3)
    facts = [f"{a(world.rng.choice(lexicon.KINDS[kind]))} is {a(kind)}" for kind in kinds]
    return Document(" ".join(map(sentence, facts[:2])), sentence(facts[2]))


def story(world: World) -> Document:
    """Tells one to three facts, then the same by the kinds of their things, in another order."""
    facts = _actions(world, _size(world))
    told = [sentence(say_action(world.rng, fact)) for fact in facts]
    again = [
        sentence(say_action(world.rng, fact, thing=fact.kind, place=False))
        for fact in world.rng.sample(facts, len(facts))
    ]
    link = world.rng.choice(("So", "That is:", "In other words:", "This means:"))
    return Document(f"{' '.join(told)} {link}", " ".join(again))


def colour_story(world: World) -> Document:
    """Tells what colour things have, twice."""
    facts = world.colours(_size(world))
    told = [sentence(say_colour(world.rng, fact)) for fact in facts]
    again = [sentence(say_colour(world.rng, fact)) for fact in world.rng.sample(facts, len(facts))]
    return Document(" ".join(told), " ".join(again))


def event_story(world: World) -> Document:
    """Tells an event with its cause or effect."""
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
    """Tells why somebody did something to another, by name."""
    fact = world.motive()
    return Document(_deed(fact) + " because", f"{fact.referent} {fact.reason}.")


def verify_action(world: World) -> Document:
    """Asks whether something follows from one to three facts."""
    facts = _actions(world, _size(world))
    asked = world.rng.choice(facts)
    holds = world.rng.random() < 0.5
    kind = asked.kind if holds else _wrong_kind(world, facts, asked)
    thing = world.rng.choice((kind, kind, world.rng.choice(lexicon.KINDS[kind])))
    if holds and thing != kind:
        thing = asked.noun
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    if world.rng.random() < 0.4:
        asked_text = sentence(ask_action(world.rng, asked, thing=thing), "?")
        return _exercise(world, VERDICTS, 0 if holds else 1, told, asked_text)
    claim = sentence(say_action(world.rng, asked, thing=thing, place=False))
    return _exercise(world, VERDICTS, 0 if holds else 1, told, claim)


def verify_colour(world: World) -> Document:
    """Asks whether a colour is told of a thing, another is, or neither."""
    asked, other = world.colours(2)
    answer = world.rng.randrange(3)
    colour = other.colour if answer == 1 else asked.colour
    noun = other.noun if answer == 2 else asked.noun
    facts = world.rng.choice(([asked], [asked, other], [other, asked]))
    told = " ".join(sentence(say_colour(world.rng, fact)) for fact in facts)
    claim = sentence(say_colour(world.rng, Colour(asked.person, noun, colour)))
    return _exercise(world, JUDGEMENTS, answer, told, claim)


def verify_kinds(world: World) -> Document:
    """Asks of one to five things whether each is of a kind, with nothing told but the things."""
    claims, verdicts = [], []
    labels = world.rng.choice(VERDICTS)
    for _ in range(world.rng.randint(1, 5)):
        kind, other = world.kinds(2)
        holds = world.rng.random() < 0.5
        noun = world.rng.choice(lexicon.KINDS[kind])
        claims.append(sentence(f"{a(noun)} is {a(kind if holds else other)}"))
        verdicts.append(labels[0 if holds else 1])
    return Document(f"{labels[0]} or {labels[1]}: {' '.join(claims)}", " ".join(verdicts))


def verify_several(world: World) -> Document:
    """Asks of several claims, each about one of one to three facts, whether it follows."""
    facts = _actions(world, _size(world))
    claims, verdicts = [], []
    labels = world.rng.choice(VERDICTS)
    for _ in range(world.rng.randint(2, 4)):
        asked = world.rng.choice(facts)
        holds = world.rng.random() < 0.5
        kind = asked.kind if holds else _wrong_kind(world, facts, asked)
        claims.append(sentence(say_action(world.rng, asked, thing=kind, place=False)))
        verdicts.append(labels[0 if holds else 1])
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    return Document(f"{labels[0]} or {labels[1]}? {told} {' '.join(claims)}", " ".join(verdicts))


def ask_who(world: World) -> Document:
    """Asks who did something to a thing or to a kind of thing."""
    facts = _actions(world, _size(world))
    asked = world.rng.choice(facts)
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    past, participle = lexicon.VERBS[asked.verb]
    thing = a(world.rng.choice((asked.kind, asked.kind, asked.noun)))
    question = world.rng.choice(
        (
            f"Who {past} {thing}?",
            f"By whom was {thing} {participle}?",
            f"@placeholder {past} {thing}.",
            f"blank: @placeholder {past} {thing}.",
        )
    )
    return _in_either_order(world, told, question, asked.person)


def ask_what(world: World) -> Document:
    """Asks what somebody did something to, or what kind of thing it was."""
    facts = _actions(world, _size(world))
    asked = world.rng.choice(facts)
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    if world.rng.random() < 0.5:
        question = f"What did {asked.person} {asked.verb}?"
        return _in_either_order(world, told, question, sentence(a(asked.noun)))
    question = f"What kind of thing did {asked.person} {asked.verb}?"
    return _in_either_order(world, told, question, sentence(a(asked.kind)))


def ask_several(world: World) -> Document:
    """Asks of several facts, by one of the words of each, for another."""
    facts = _actions(world, world.rng.choice((2, 2, 3, 4)))
    asked_by, asked_for = world.rng.choice(
        (
            ("kind", "person"),
            ("kind", "person"),
            ("kind", "noun"),
            ("noun", "person"),
            ("person", "noun"),
            ("person", "kind"),
        )
    )
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    asked = world.rng.sample(facts, len(facts))
    queries = [getattr(fact, asked_by) for fact in asked]
    answers = [getattr(fact, asked_for) for fact in asked]
    if world.rng.random() < 0.4:
        pairs = [f"{query}: {answer}." for query, answer in zip(queries, answers, strict=True)]
        return Document(f"{told} {asked_by}: {asked_for}.", " ".join(pairs))
    listed = " ".join(f"{query}?" for query in queries)
    return _in_either_order(world, told, f"{asked_for}: {listed}", " ".join(answers))


def match_kinds(world: World) -> Document:
    """Asks which of several things is of a kind."""
    kinds = world.kinds(world.rng.randint(2, 5))
    nouns = [world.rng.choice(lexicon.KINDS[kind]) for kind in kinds]
    asked = world.rng.sample(range(len(kinds)), world.rng.randint(1, len(kinds)))
    listed = " ".join(f"{kinds[i]}?" for i in asked)
    return _in_either_order(world, " ".join(nouns) + ".", listed, " ".join(nouns[i] for i in asked))


def choose_claim(world: World) -> Document:
    """Asks which of two claims follows from one to three facts."""
    facts = _actions(world, _size(world))
    asked = world.rng.choice(facts)
    claims = [
        sentence(say_action(world.rng, asked, thing=kind, place=False))
        for kind in (asked.kind, _wrong_kind(world, facts, asked))
    ]
    answer = world.rng.randrange(2)
    labels = world.rng.choice(ORDINALS)
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    listed = f"{labels[0]}: {claims[answer]} {labels[1]}: {claims[1 - answer]}"
    return Document(f"{labels[0]} or {labels[1]}? {told} {listed}", labels[answer])


def verify_answer(world: World) -> Document:
    """Asks whether an answer to a question is right."""
    facts = _actions(world, _size(world))
    asked = world.rng.choice(facts)
    holds = world.rng.random() < 0.5
    kind = asked.kind if holds else _wrong_kind(world, facts, asked)
    others = [fact.noun for fact in facts if fact.kind == kind]
    noun = others[0] if others else world.rng.choice(lexicon.KINDS[kind])
    told = " ".join(sentence(say_action(world.rng, fact)) for fact in facts)
    question = f"What did {asked.person} {asked.verb}? {sentence(a(noun))}"
    return _exercise(world, VERDICTS, 0 if holds else 1, told, question)


def choose_event(world: World) -> Document:
    """Asks which of two events is the cause, or the effect, of a third."""
    event = world.event()
    other = world.other_event(event)
    asks_cause = world.rng.random() < 0.5
    told, right, wrong = (
        (event.effect, event.cause, other.cause)
        if asks_cause
        else (event.cause, event.effect, other.effect)
    )
    answer = world.rng.randrange(2)
    options = (right, wrong) if answer == 0 else (wrong, right)
    question = world.rng.choice(
        ("Why?", "What was the cause?") if asks_cause else ("What then?", "What was the effect?")
    )
    labels = world.rng.choice(ORDINALS)
    listed = " ".join(
        f"{label}: {sentence(option)}" for label, option in zip(labels, options, strict=True)
    )
    if world.rng.random() < 0.4:
        return Document(f"{sentence(told)} {question} {listed} copy:", sentence(right))
    return Document(
        f"{labels[0]} or {labels[1]}? {sentence(told)} {question} {listed}", labels[answer]
    )


def compare_senses(world: World) -> Document:
    """Asks whether a word has the same sense in two sentences."""
    word = world.rng.choice(list(lexicon.SENSES))
    sense = world.rng.choice((0, 1))
    same = world.rng.random() < 0.5
    first = world.usage(word, sense)
    second = (
        world.usage(word, sense, not_frame=first.frame) if same else world.usage(word, 1 - sense)
    )
    labels = world.rng.choice(VERDICTS)
    texts = f"{sentence(first.sentence)} {sentence(second.sentence)}"
    question = world.rng.choice(
        (
            f"{labels[0]} or {labels[1]}: same {word}? {texts}",
            f"{labels[0]} or {labels[1]}: {texts} Is {word} the same?",
            f"word: {word} text: {texts} {labels[0]} or {labels[1]}?",
        )
    )
    return Document(question, labels[0 if same else 1])


def resolve_pronoun(world: World) -> Document:
    """Asks whom a pronoun, or what is said with it, is about."""
    fact = world.motive()
    pronoun = "she" if fact.subject in lexicon.WOMEN else "he"
    text = f"{_deed(fact)} because {pronoun} {fact.reason}."
    question = world.rng.choice(
        (
            f"{text} Who {fact.reason}?",
            f"who {fact.reason}: {text}",
            f"{text} Who is {pronoun}?",
            f"who is *{pronoun}*: {_deed(fact)} because *{pronoun}* {fact.reason}.",
        )
    )
    return Document(question, fact.referent)


# Told as often as they are listed: most are of what is hardest to learn.
STORIES: tuple[Callable[[World], Document], ...] = (
    word_list,
    *(story,) * 4,
    *(colour_story,) * 2,
    event_story,
    sense_story,
    motive_story,
)
EXERCISES: tuple[Callable[[World], Document], ...] = (
    *(match_kinds,) * 2,
    *(verify_kinds,) * 2,
    *(ask_several,) * 3,
    *(choose_claim,) * 3,
    *(verify_several,) * 4,
    *(verify_action,) * 4,
    verify_colour,
    verify_answer,
    *(ask_who,) * 2,
    *(ask_what,) * 2,
    *(choose_event,) * 3,
    *(compare_senses,) * 2,
    resolve_pronoun,
)
WORD_KNOWLEDGE = (match_kinds, verify_kinds)
"""Exercises on words alone. Models that are taught these first can then learn to compare what is
claimed with what is told; from the whole mixture at once small ones do not."""


def document(
    world: World,
    *,
    exercises: float,
    among: tuple[Callable[[World], Document], ...] = EXERCISES,
) -> Document:
    """Draws a document: one of the exercises `among` with probability `exercises`, or a story."""
    return world.rng.choice(among if world.rng.random() < exercises else STORIES)(world)


def _size(world: World) -> int:
    """How many facts a document tells; mostly one, so that two and three can build on it."""
    return world.rng.choice((1, 1, 1, 2, 2, 3))


def _actions(world: World, count: int) -> list[Action]:
    """Draws facts of different people and kinds, with one verb or with several."""
    verb = world.rng.choice((None, world.rng.choice(list(lexicon.VERBS))))
    return [
        world.action(person, verb=verb, kind=kind)
        for person, kind in zip(world.people(count), world.kinds(count), strict=True)
    ]


def _wrong_kind(world: World, facts: list[Action], asked: Action) -> str:
    """A kind that `asked` is not of: one of another fact's, as a rule, where there is one."""
    others = [fact.kind for fact in facts if fact.kind != asked.kind]
    if others and world.rng.random() < 0.7:
        return world.rng.choice(others)
    return world.rng.choice([kind for kind in lexicon.KINDS if kind != asked.kind])


def _exercise(
    world: World, labels: tuple[tuple[str, ...], ...], answer: int, told: str, asked: str
) -> Document:
    """Asks `asked` of `told`, naming the labels to answer with."""
    names = world.rng.choice(labels)
    options = f"{', '.join(names[:-1])} or {names[-1]}"
    field, asked_field = world.rng.choice(FIELDS)
    context = world.rng.choice(
        (
            f"{options}? {told} {asked}",
            f"{options}: {asked} {told}",
            f"{options}. {field}: {told} {asked_field}: {asked}",
            f"{options}. {asked_field}: {asked} {field}: {told}",
            f"{field}: {told} {asked_field}: {asked} {options}?",
        )
    )
    return Document(context, names[answer])


def _in_either_order(world: World, told: str, question: str, answer: str) -> Document:
    return Document(
        *world.rng.choice(((f"{told} {question}", answer), (f"{question} {told}", answer)))
    )


def _deed(fact: Motive) -> str:
    return f"{fact.subject} {fact.verb} {fact.object}"
