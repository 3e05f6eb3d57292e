"""Exercises of TinyWorld: documents with a question and its answer, in many phrasings.

They build on one another: `copy_words` and `list_pairs` teach a model to find a word in a text and
its neighbor, `recall` to answer with it, `find_words` to decide whether it occurs, `match_kinds`
the meaning of words; the others combine these. `corpus.py` has the order.

The formats of the eight tasks don't occur: the fields of `tasks/superglue.py` never appear in its
order and with its names.
"""

from collections.abc import Sequence

from stories import Document, actions, deed, size

from prompt_tuning.tinyworld import lexicon
from prompt_tuning.tinyworld.templates import (
    a,
    ask_action,
    claim,
    say_colour,
    sentence,
    tell_actions,
    tell_colours,
)
from prompt_tuning.tinyworld.world import Action, Colour, World

# (true, false) answers, listed in the instruction.
VERDICTS = (
    ("yes", "no"),
    ("true", "false"),
    ("right", "wrong"),
    ("True", "False"),
    ("entailment", "not_entailment"),
)
# Labels of the (first, second) of two choices.
ORDINALS = (("first", "second"), ("one", "two"), ("choice1", "choice2"))
# (true, false, undetermined) answers.
JUDGEMENTS = (
    ("yes", "no", "unknown"),
    ("true", "false", "maybe"),
    ("entailment", "contradiction", "neutral"),
)
# Names of the fields of an exercise: (the facts, the question).
FIELDS = (
    ("text", "claim"),
    ("story", "statement"),
    ("premise", "conclusion"),
    ("passage", "claim"),
    ("fact", "hypothesis"),
    ("sentence", "conclusion"),
)


# The words of lists and pairs.
_WORDS: dict[str, tuple[str, ...]] = {
    "person": lexicon.PEOPLE,
    "noun": tuple(lexicon.KIND_OF),
    "colour": lexicon.COLOURS,
    "place": lexicon.PLACES,
}


def copy_words(world: World) -> Document:
    """Lists words to be repeated."""
    pool = [word for words in _WORDS.values() for word in words]
    words = " ".join(world.rng.sample(pool, world.rng.randint(4, 12)))
    return Document(*world.rng.choice(((f"copy: {words}", words), (f"{words} copy:", words))))


def list_pairs(world: World) -> Document:
    """States pairs of words twice, the second time in another, unpredictable order."""
    pairs = _pairs(world, world.rng.randint(2, 6))
    again = world.rng.sample(pairs, len(pairs))
    return Document(f"{_list(pairs)} copy:", _list(again))


def recall_next(world: World) -> Document:
    """States pairs of words and asks for the second word of one by the first."""
    pairs = _pairs(world, world.rng.randint(2, 4))
    x, y = world.rng.choice(pairs)
    return Document(f"{_list(pairs)} {x}?", y)


def recall(world: World) -> Document:
    """States pairs of words and asks for the partners of some words."""
    pairs = _pairs(world, world.rng.randint(2, 5))
    asked = world.rng.sample(pairs, world.rng.choice((1, 1, 2, len(pairs))))
    question, answer = _question([x for x, _ in asked], [y for _, y in asked], repeat=False)
    return _in_either_order(world, _tell_pairs(world, pairs), question, answer)


def find_words(world: World) -> Document:
    """Lists words and asks for some words whether each is in the list."""
    pool = [word for words in _WORDS.values() for word in words]
    words = world.rng.sample(pool, world.rng.randint(4, 8))
    told = world.rng.sample(words, len(words) // 2)
    asked = world.rng.sample(words, world.rng.randint(1, 3))
    return _verify_each(world, " ".join(told) + ".", asked, [word in told for word in asked])


def find_kinds(world: World) -> Document:
    """Lists things and asks for some kinds whether one of the things is of that kind."""
    kinds = world.kinds(world.rng.randint(2, 6))
    told = world.rng.sample(kinds, len(kinds) // 2)
    nouns = [world.rng.choice(lexicon.KINDS[kind]) for kind in told]
    asked = world.rng.sample(kinds, world.rng.randint(1, min(3, len(kinds))))
    return _verify_each(world, " ".join(nouns) + ".", asked, [kind in told for kind in asked])


def recall_by_kind(world: World) -> Document:
    """States pairs of a thing and a word and asks for the words by the kinds of the things."""
    pairs = _pairs(world, world.rng.randint(2, 4), left="noun")
    asked = world.rng.sample(pairs, world.rng.choice((1, 1, 2, len(pairs))))
    kinds = [lexicon.KIND_OF[x] for x, _ in asked]
    repeat = world.rng.random() < 0.4
    question, answer = _question(kinds, [y for _, y in asked], repeat=repeat)
    return _in_either_order(world, _tell_pairs(world, pairs), question, answer)


def verify_pair(world: World) -> Document:
    """States pairs of words and asks whether two words are a pair."""
    pairs = _pairs(world, world.rng.randint(2, 4))
    (x, y), (_, other) = world.rng.sample(pairs, 2)
    holds = world.rng.random() < 0.5
    told = _tell_pairs(world, pairs)
    return _exercise(world, VERDICTS, 0 if holds else 1, told, f"{x} {y if holds else other}.")


def verify_action(world: World) -> Document:
    """Asks whether something follows from one to three facts."""
    facts = actions(world, size(world))
    asked, holds, kind = _drawn_claim(world, facts)
    thing = world.rng.choice((kind, kind, world.rng.choice(lexicon.KINDS[kind])))
    if holds and thing != kind:
        thing = asked.noun
    told = tell_actions(world.rng, facts)
    if world.rng.random() < 0.4:
        asked_text = sentence(ask_action(world.rng, asked, thing=thing), "?")
        return _exercise(world, VERDICTS, 0 if holds else 1, told, asked_text)
    return _exercise(world, VERDICTS, 0 if holds else 1, told, claim(world.rng, asked, thing))


def verify_colour(world: World) -> Document:
    """Asks whether a thing has a color; the text states that color, another, or none."""
    asked, other = world.colours(2)
    answer = world.rng.randrange(3)
    colour = other.colour if answer == 1 else asked.colour
    noun = other.noun if answer == 2 else asked.noun
    facts = world.rng.choice(([asked], [asked, other], [other, asked]))
    told = tell_colours(world.rng, facts)
    asked_text = sentence(say_colour(world.rng, Colour(asked.person, noun, colour)))
    return _exercise(world, JUDGEMENTS, answer, told, asked_text)


def verify_part(world: World) -> Document:
    """Asks whether somebody has a thing, or a thing of a color; the text has one or two facts."""
    asked, other = world.colours(2)
    holds = world.rng.random() < 0.5
    said = asked if holds else other
    facts = world.rng.choice(([asked], [asked, other], [other, asked]))
    told = tell_colours(world.rng, facts)
    claimed = world.rng.choice(
        (
            f"{asked.person} has a {said.noun}",
            f"the {said.noun} is that of {asked.person}",
            f"what {asked.person} has is {said.colour}",
            f"{said.colour} is what {asked.person} has",
        )
    )
    return _exercise(world, VERDICTS, 0 if holds else 1, told, sentence(claimed))


def verify_kinds(world: World) -> Document:
    """Asks for one to three things whether each is of a kind, without stating any fact."""
    claims, verdicts = [], []
    labels = world.rng.choice(VERDICTS)
    for _ in range(world.rng.randint(1, 3)):
        kind, other = world.kinds(2)
        holds = world.rng.random() < 0.5
        noun = world.rng.choice(lexicon.KINDS[kind])
        claims.append(sentence(f"{a(noun)} is {a(kind if holds else other)}"))
        verdicts.append(labels[0 if holds else 1])
    return Document(f"{labels[0]} or {labels[1]}: {' '.join(claims)}", " ".join(verdicts))


def verify_several(world: World) -> Document:
    """Asks for several claims, each about one of one to three facts, whether it follows."""
    facts = actions(world, size(world))
    claims, verdicts = [], []
    labels = world.rng.choice(VERDICTS)
    for _ in range(world.rng.randint(2, 4)):
        asked, holds, kind = _drawn_claim(world, facts)
        claims.append(claim(world.rng, asked, kind))
        verdicts.append(labels[0 if holds else 1])
    told = tell_actions(world.rng, facts)
    return Document(f"{labels[0]} or {labels[1]}? {told} {' '.join(claims)}", " ".join(verdicts))


def ask_who(world: World) -> Document:
    """Asks who did something to a thing or to a kind of thing."""
    facts = actions(world, size(world))
    asked = world.rng.choice(facts)
    told = tell_actions(world.rng, facts)
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
    facts = actions(world, size(world))
    asked = world.rng.choice(facts)
    told = tell_actions(world.rng, facts)
    if world.rng.random() < 0.5:
        question = f"What did {asked.person} {asked.verb}?"
        return _in_either_order(world, told, question, sentence(a(asked.noun)))
    question = f"What kind of thing did {asked.person} {asked.verb}?"
    return _in_either_order(world, told, question, sentence(a(asked.kind)))


def ask_several(world: World) -> Document:
    """Asks, for each of several facts, for one of its words by another."""
    facts = actions(world, world.rng.choice((2, 2, 3, 4)))
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
    told = tell_actions(world.rng, facts)
    asked = world.rng.sample(facts, len(facts))
    return _ask_each(world, told, asked, asked_by, asked_for)


def ask_colours(world: World) -> Document:
    """Asks for the color, the owner or the name of several things."""
    facts = world.colours(world.rng.choice((1, 2, 2, 3)))
    asked_by, asked_for = world.rng.sample(("person", "noun", "colour"), 2)
    told = tell_colours(world.rng, facts)
    asked = world.rng.sample(facts, world.rng.randint(1, len(facts)))
    return _ask_each(world, told, asked, asked_by, asked_for)


def match_kinds(world: World) -> Document:
    """Asks which of several things is of a kind."""
    kinds = world.kinds(world.rng.randint(2, 5))
    nouns = [world.rng.choice(lexicon.KINDS[kind]) for kind in kinds]
    asked = world.rng.sample(range(len(kinds)), world.rng.randint(1, len(kinds)))
    listed = " ".join(f"{kinds[i]}?" for i in asked)
    return _in_either_order(world, " ".join(nouns) + ".", listed, " ".join(nouns[i] for i in asked))


def choose_claim(world: World) -> Document:
    """Asks which of two claims follows from one to three facts."""
    facts = actions(world, size(world))
    asked = world.rng.choice(facts)
    claims = [
        claim(world.rng, asked, kind) for kind in (asked.kind, _wrong_kind(world, facts, asked))
    ]
    answer = world.rng.randrange(2)
    labels = world.rng.choice(ORDINALS)
    told = tell_actions(world.rng, facts)
    listed = f"{labels[0]}: {claims[answer]} {labels[1]}: {claims[1 - answer]}"
    return Document(f"{labels[0]} or {labels[1]}? {told} {listed}", labels[answer])


def verify_answer(world: World) -> Document:
    """Asks whether an answer to a question is right."""
    facts = actions(world, size(world))
    asked, holds, kind = _drawn_claim(world, facts)
    others = [fact.noun for fact in facts if fact.kind == kind]
    noun = others[0] if others else world.rng.choice(lexicon.KINDS[kind])
    told = tell_actions(world.rng, facts)
    question = f"What did {asked.person} {asked.verb}? {sentence(a(noun))}"
    return _exercise(world, VERDICTS, 0 if holds else 1, told, question)


def name_choice(world: World) -> Document:
    """Lists two texts under labels and asks for the label of one, or for the text of a label."""
    first, second = world.rng.sample(range(len(lexicon.EVENTS)), 2)
    (person,) = world.people(1)
    texts = [
        sentence(world.rng.choice(lexicon.EVENTS[index]).format(p=person))
        for index in (first, second)
    ]
    labels = world.rng.choice(ORDINALS)
    listed = " ".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    answer = world.rng.randrange(2)
    if world.rng.random() < 0.3:
        return _in_either_order(world, listed, f"{labels[answer]}?", texts[answer])
    question = f"{labels[0]} or {labels[1]}? {texts[answer]}"
    return _in_either_order(world, listed, question, labels[answer])


def choose_event(world: World) -> Document:
    """Asks which of two events is the cause, or the effect, of a third."""
    event = world.event()
    other = world.other_event(event)
    asks_cause = world.rng.random() < 0.5
    told, right, wrong = event.question(other, asks_cause=asks_cause)
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
    """Asks whom a pronoun, or a statement with it, is about."""
    fact = world.motive()
    pronoun = "she" if fact.subject in lexicon.WOMEN else "he"
    text = f"{deed(fact)} because {pronoun} {fact.reason}."
    question = world.rng.choice(
        (
            f"{text} Who {fact.reason}?",
            f"who {fact.reason}: {text}",
            f"{text} Who is {pronoun}?",
            f"who is *{pronoun}*: {deed(fact)} because *{pronoun}* {fact.reason}.",
        )
    )
    return Document(question, fact.referent)


def _drawn_claim(world: World, facts: list[Action]) -> tuple[Action, bool, str]:
    """Samples a fact, whether to claim it or something wrong, and the claimed kind of thing."""
    asked = world.rng.choice(facts)
    holds = world.rng.random() < 0.5
    return asked, holds, asked.kind if holds else _wrong_kind(world, facts, asked)


def _wrong_kind(world: World, facts: list[Action], asked: Action) -> str:
    """Samples a kind other than that of `asked`, preferably that of another fact."""
    others = [fact.kind for fact in facts if fact.kind != asked.kind]
    if others and world.rng.random() < 0.7:
        return world.rng.choice(others)
    return world.rng.choice([kind for kind in lexicon.KINDS if kind != asked.kind])


def _exercise(
    world: World, labels: tuple[tuple[str, ...], ...], answer: int, told: str, asked: str
) -> Document:
    """Returns the question `asked` about the text `told`, with the labels to answer with."""
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


def _ask_each(
    world: World, told: str, asked: Sequence[Action | Colour], asked_by: str, asked_for: str
) -> Document:
    """Asks for one word of each fact by another."""
    queries = [getattr(fact, asked_by) for fact in asked]
    answers = [getattr(fact, asked_for) for fact in asked]
    question, answer = _question(queries, answers, repeat=world.rng.random() < 0.4)
    return _in_either_order(world, told, f"{asked_for}: {question}", answer)


def _verify_each(world: World, told: str, asked: list[str], holds: list[bool]) -> Document:
    labels = world.rng.choice(VERDICTS)
    verdicts = [labels[0 if held else 1] for held in holds]
    question, answer = _question(asked, verdicts, repeat=world.rng.random() < 0.5)
    return _in_either_order(world, told, f"{labels[0]} or {labels[1]}: {question}", answer)


def _question(asked_by: list[str], answers: list[str], *, repeat: bool) -> tuple[str, str]:
    """Returns a question and its answer, which may `repeat` the words asked about."""
    answered = (
        " ".join(f"{x}: {y}." for x, y in zip(asked_by, answers, strict=True))
        if repeat
        else " ".join(answers)
    )
    return " ".join(f"{x}?" for x in asked_by) + (":" if repeat else ""), answered


def _pairs(world: World, count: int, left: str | None = None) -> list[tuple[str, str]]:
    """Samples pairs of words of two sorts, with no repeated word or kind of thing."""
    others = [sort for sort in _WORDS if sort != left]
    sorts = [left, world.rng.choice(others)] if left else world.rng.sample(others, 2)
    return list(zip(*(_draw_words(world, sort, count) for sort in sorts), strict=True))


def _draw_words(world: World, sort: str, count: int) -> list[str]:
    if sort == "noun":
        return [world.rng.choice(lexicon.KINDS[kind]) for kind in world.kinds(count)]
    return world.rng.sample(_WORDS[sort], count)


def _list(pairs: list[tuple[str, str]]) -> str:
    return " ".join(f"{x} {y}." for x, y in pairs)


def _tell_pairs(world: World, pairs: list[tuple[str, str]]) -> str:
    link = world.rng.choice((" ", " is ", " and ", " in the ", ": "))
    if world.rng.random() < 0.5:
        pairs = [(y, x) for x, y in pairs]
    return " ".join(f"{x}{link}{y}." for x, y in pairs)
