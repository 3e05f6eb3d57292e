"""DPR: WSC's text from its five-line files, and what is refused.

The texts are what T5's preprocessor (`definite_pronoun_resolution_simple`) makes of such rows.
"""

import pytest

from prompt_tuning.data.preprocessors import pronoun_text
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError


def test_golden_examples(texts):
    expected = [
        ("wsc: Mitchell asked Tom if *he* could lend some money.", "Tom"),
        ("wsc: Carl borrowed a book from Richard, but the book was unreadable to *him*.", "Carl"),
    ]
    for split in ("train", "validation"):
        assert texts("dpr_with_name", split) == expected
        assert texts("dpr", split) == [(inputs.removeprefix("wsc: "), t) for inputs, t in expected]


@pytest.mark.parametrize(
    ("sentence", "pronoun", "marked"),
    [
        ("Bill beat Tom because that newbie won.", "that newbie", "because *that newbie* won."),
        ("The man said he, the heir, or he ran.", "he", "said *he*, the heir, or he ran."),
        ("He ran because he could.", "he", "ran because *he* could."),
        ("Nobody said it;", "it", "Nobody said it;"),
        ("They cost $5 (net) there.", "(net)", "$5 *(net)* there."),
    ],
)
def test_the_first_occurrence_is_marked(sentence, pronoun, marked):
    assert pronoun_text({"sentence": sentence, "pronoun": pronoun}).endswith(marked)


def test_answers_are_compared_exactly(official_files):
    task = get_task("dpr")
    metadata = [{"targets": e.targets} for e in task.examples("validation", str(official_files))]
    assert task.evaluate(metadata, ["Tom", "Richard"]) == {"accuracy": 0.5}


def test_bad_files_are_named(tmp_path):
    (tmp_path / "DPR").mkdir()
    path = tmp_path / "DPR" / "train.c.txt"
    path.write_text("A saw B.\nA\nA,B\nC\n\n")
    with pytest.raises(UserError, match=rf"{path}:1: answer 'C' is not one of \['A', 'B'\]"):
        list(get_task("dpr").examples("train", str(tmp_path)))
    path.write_text("A saw B.\nA\nA,B\nA\n\nIt ended.\nit\n")
    with pytest.raises(UserError, match=f"{path}:6: no field 'candidates'"):
        list(get_task("dpr").examples("train", str(tmp_path)))
