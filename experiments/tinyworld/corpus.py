"""The pre-training corpus: short documents about the corpus's own facts, as a curriculum.

A document has a context and a continuation. Span corruption (Raffel et al., 2020, section 3.1.4)
treats them as one text; LM adaptation (Lester et al., 2021, section 3.1) predicts the continuation
from the context. `stories.py` states facts, `exercises.py` has questions and answers.

No document states a fact of a task's split (see `world.region_of`) or has a task's format.
"""

import dataclasses
from collections.abc import Callable

import exercises
import stories
from stories import Document

from prompt_tuning.tinyworld.world import World

Writer = Callable[[World], Document]

# Sampled in proportion to how often they are listed.
STORIES: tuple[Writer, ...] = (
    stories.word_list,
    *(stories.story,) * 4,
    *(stories.colour_story,) * 2,
    *(stories.event_story,) * 2,
    stories.sense_story,
    stories.motive_story,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lesson:
    """A part of the curriculum: the exercises that are new in it."""

    name: str
    exercises: tuple[Writer, ...]

    @property
    def goals(self) -> tuple[Writer, ...]:
        """The exercises that can be answered exactly, each once."""
        return tuple(e for e in dict.fromkeys(self.exercises) if e is not exercises.list_pairs)


# Each lesson builds on the previous ones. A model that trains on the whole mixture from the start
# only learns which words could be the answer: to find the right one, it must first be able to find
# a word in a text, and its neighbor.
CURRICULUM = (
    Lesson(name="copying", exercises=(exercises.copy_words,)),
    Lesson(name="pairs", exercises=(*(exercises.list_pairs,) * 2, exercises.recall_next)),
    Lesson(name="recall", exercises=(*(exercises.recall,) * 2, exercises.name_choice)),
    Lesson(name="words", exercises=(exercises.match_kinds,)),
    Lesson(name="pairs by kind", exercises=(exercises.recall_by_kind,)),
    Lesson(name="presence", exercises=(exercises.find_words, exercises.find_kinds)),
    Lesson(name="comparison", exercises=(exercises.verify_kinds, exercises.verify_pair)),
    Lesson(
        name="facts",
        exercises=(
            *(exercises.ask_several,) * 2,
            exercises.ask_colours,
            exercises.ask_who,
            exercises.ask_what,
        ),
    ),
    Lesson(
        name="senses and motives",
        exercises=(*(exercises.compare_senses,) * 3, exercises.resolve_pronoun),
    ),
    Lesson(
        name="claims",
        exercises=(
            *(exercises.verify_action,) * 3,
            *(exercises.verify_several,) * 2,
            *(exercises.verify_answer,) * 2,
            exercises.choose_claim,
        ),
    ),
    Lesson(
        name="colors",
        exercises=(*(exercises.verify_part,) * 2, *(exercises.verify_colour,) * 3),
    ),
    Lesson(name="events", exercises=(exercises.choose_event,)),
)
EXERCISES: tuple[Writer, ...] = tuple(
    exercise for lesson in CURRICULUM for exercise in lesson.exercises
)


def document(world: World, *, exercises: float) -> Document:
    """Samples a document: any exercise with probability `exercises`, else a story."""
    return world.rng.choice(EXERCISES if world.rng.random() < exercises else STORIES)(world)


def lesson_document(world: World, number: int) -> Document:
    """Samples a document of lesson `number` of the curriculum, or sometimes of an earlier one."""
    draw = world.rng.random()
    if draw < 0.1:
        return world.rng.choice(STORIES)(world)
    earlier = [exercise for lesson in CURRICULUM[:number] for exercise in lesson.exercises]
    if draw < 0.35 and earlier:
        return world.rng.choice(earlier)(world)
    return world.rng.choice(CURRICULUM[number].exercises)(world)
