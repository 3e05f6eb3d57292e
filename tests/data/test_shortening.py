"""A column that is shortened: the rest of the text stays whole, whatever the length."""

import dataclasses

import pytest

from prompt_tuning.data.shortening import fit_inputs
from prompt_tuning.data.tasks.task import Example, Task
from prompt_tuning.data.templates import Template
from prompt_tuning.errors import UserError

PASSAGE = "Two dogs ran home. Rain fell on the mat, and a cat sat on it until it was grey."
ROW = {"passage": PASSAGE, "question": "What colour is the cat?", "label": "grey", "number": 3}


def made(template: str, column: str, rows: int = 1) -> Task:
    inputs = Template(template, "input template")

    class Rows:
        def rows(self, split):
            for i in range(rows):
                yield f"r.csv:{i}", ROW

    return Task(
        name="toy",
        source=lambda data_dir: Rows(),
        render=lambda row, training: [Example(inputs=inputs.render(row), targets=row["label"])],
        metrics=(),
        shorten=column,
    )


@pytest.mark.parametrize(
    "template",
    ["{passage} question: {question}", "question: {question} context: {passage}", "{passage}"],
)
def test_inputs_of_every_length(template, tiny_vocabulary):
    def tokens(text: str) -> int:
        return len(tiny_vocabulary.encode(text)) + 1

    inputs = Template(template, "input template")
    task = made(template, "passage")
    least = tokens(inputs.render({**ROW, "passage": ""}))
    most = tokens(inputs.render(ROW))
    kept = set()
    for limit in range(least, most + 2):
        fitted = fit_inputs(task, tiny_vocabulary, limit)
        (example,) = fitted.examples("train")
        assert tokens(example.inputs) <= limit
        assert example.shortened == (limit < most)
        assert fitted.inputs_of(ROW) == example.inputs
        start, _, end = template.partition("{passage}")
        start, end = (part.replace("{question}", ROW["question"]) for part in (start, end))
        assert example.inputs.startswith(start.strip()) and example.inputs.endswith(end.strip())
        rest = example.inputs.removeprefix(start.strip()).removesuffix(end.strip()).strip()
        words = PASSAGE.split()
        used = len(rest.split())
        assert rest == " ".join(words[:used])
        # No further than needed: one more word is too many.
        more = inputs.render({**ROW, "passage": " ".join(words[: used + 1])})
        assert used == len(words) or tokens(more) > limit
        kept.add(rest)
    assert len(kept) > 8


def test_words_without_spaces_are_cut_anywhere(tiny_vocabulary):
    row = {**ROW, "passage": "cat" * 50}
    task = fit_inputs(made("{passage} {question}", "passage"), tiny_vocabulary, 60)
    text = task.inputs_of(row)
    assert text.startswith("catcat") and text.endswith(f" {ROW['question']}")
    assert len(tiny_vocabulary.encode(text)) < 60


def test_what_fits_stays_and_nothing_to_shorten_is_the_task_itself(tiny_vocabulary):
    task = made("{passage}", "passage")
    (example,) = fit_inputs(task, tiny_vocabulary, 999).examples("train")
    assert (example.inputs, example.shortened) == (PASSAGE, False)
    plain = dataclasses.replace(task, shorten=None)
    assert fit_inputs(plain, tiny_vocabulary, 4) is plain


@pytest.mark.parametrize(
    ("template", "column", "message"),
    [
        ("{passage}", "pasage", "r.csv:0: .*pasage"),
        (
            "{passage} {number}",
            "number",
            "column 'number', which data.shorten names, is 3; expected",
        ),
        ("{passage}", "question", "column 'question', .* is not part of the inputs"),
    ],
)
def test_what_can_not_be_shortened(template, column, message, tiny_vocabulary):
    task = fit_inputs(made(template, column), tiny_vocabulary, 5)
    with pytest.raises(UserError, match=message):
        list(task.examples("train"))
