"""Every task makes its text of a row without an answer, as `prompt-tuning infer` gets it."""

import re

import pytest

from prompt_tuning.data.sources import bad_rows_named
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.errors import UserError

NLI = {"premise": "Rain fell.", "hypothesis": "It rained."}
SENTENCES = {"sentence1": "Rain fell.", "sentence2": "It rained."}
QUESTION = {"question": "Who sat?", "context": "A cat sat (on a mat)."}

# By the task's name without "_with_name": the fields that TFDS gives an unlabeled row, no number
# and no answer among them, and the text without the task's name.
ROWS = {
    "cnn_dailymail": ({"article": "Rain fell."}, "Rain fell."),
    "dpr": ({"sentence": "Ann saw that she won.", "pronoun": "she"}, "Ann saw that *she* won."),
    "glue_(ax|mnli|mnli_mismatched)": (NLI, "hypothesis: It rained. premise: Rain fell."),
    "glue_(cola|sst2)": ({"sentence": "Rain fell."}, "sentence: Rain fell."),
    "glue_(mrpc|mrpc_from_qqp|rte|stsb|wnli)": (
        SENTENCES,
        "sentence1: Rain fell. sentence2: It rained.",
    ),
    "glue_(qqp|qqp_from_mrpc)": (
        {"question1": "Who?", "question2": "When?"},
        "question1: Who? question2: When?",
    ),
    "glue_qnli": (
        {"question": "Who?", "sentence": "Rain fell."},
        "question: Who? sentence: Rain fell.",
    ),
    "(squad|mrqa_.*)": (
        QUESTION,
        "question: Who sat ? context: A cat sat ( on a mat ) . ",
    ),
    "(superglue|tinyworld)_boolq": (
        {"question": "did it rain", "passage": "Rain fell."},
        "passage: Rain fell. question: did it rain",
    ),
    "(superglue|tinyworld)_(cb|rte)|superglue_axg": (
        NLI,
        "hypothesis: It rained. premise: Rain fell.",
    ),
    "superglue_axb": (SENTENCES, "hypothesis: It rained. premise: Rain fell."),
    "(superglue|tinyworld)_copa": (
        {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause"},
        "choice1: A. choice2: B. premise: P. question: cause",
    ),
    "(superglue|tinyworld)_multirc": (
        {"paragraph": "<b>Sent 1: </b>Rain fell.<br>", "question": "What?", "answer": "Rain"},
        "question: What? answer: Rain paragraph: Sent 1: Rain fell. ",
    ),
    "tinyworld_qa_.*": (
        {"question": "Who sat?", "passage": "A cat sat."},
        "question: Who sat? passage: A cat sat.",
    ),
    "tinyworld_same_claims": (
        {"first": "Rain fell.", "second": "It rained."},
        "sentence1: Rain fell. sentence2: It rained.",
    ),
    "tinyworld_same_questions": (
        {"first": "Who?", "second": "When?"},
        "question1: Who? question2: When?",
    ),
    "(superglue|tinyworld)_record": (
        {"passage": "Ann met Bob.", "query": "@placeholder sings.", "entities": ["Ann", "Bob"]},
        "query: @placeholder sings. entities: Ann, Bob passage: Ann met Bob.",
    ),
    "(superglue|tinyworld)_wic": (
        {**SENTENCES, "word": "rain"},
        "sentence1: Rain fell. sentence2: It rained. word: rain",
    ),
    "(superglue|tinyworld)_wsc": (
        {"text": "Ann saw that she won.", "span2_text": "she", "span2_index": 3},
        "Ann saw that *she* won.",
    ),
    "xsum": ({"document": "Rain fell."}, "Rain fell."),
}


@pytest.mark.parametrize("name", list_tasks())
def test_an_unlabelled_row_has_its_text(name):
    (found,) = [
        row for names, row in ROWS.items() if re.fullmatch(names, name.removesuffix("_with_name"))
    ]
    row, text = found
    inputs = get_task(name).inputs_of(row)
    if name.endswith("_with_name"):
        assert re.fullmatch(r"\S+ " + re.escape(text), inputs)
    else:
        assert inputs == text
    # What else a row has, an answer or none, makes no difference.
    assert get_task(name).inputs_of({**row, "idx": 3, "label": None, "answers": None}) == inputs


@pytest.mark.parametrize("name", list_tasks())
def test_a_row_without_the_fields_is_told(name):
    row = {"id": 7}
    told = pytest.raises(UserError, match=r"lines:1: no field '\w+'; found 'id'")
    with told, bad_rows_named("lines:1", row):
        get_task(name).inputs_of(row)


def test_the_columns_of_a_text_are_found_by_asking_for_it():
    assert set(get_task("superglue_rte").columns) == {"premise", "hypothesis"}
    assert get_task("glue_sst2").columns == ("sentence",)
    # The number of a word is asked for, and a text isn't one.
    assert get_task("superglue_wsc").columns == ()
