"""SQuAD and MRQA: their text, a golden example each, and what is refused.

The texts are what T5's preprocessor (`preprocessors.squad`) and the paper's own code (`mrqa`) make
of such rows.
"""

import gzip
import json

import pytest

from prompt_tuning.data.preprocessors import spaced_punctuation
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.question_answering import MRQA_TASKS
from prompt_tuning.errors import UserError


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        (
            '"This  is a string with "punctuation (1845-1986) ".',
            ' " This is a string with " punctuation ( 1845 - 1986 ) " . ',
        ),
        ('"Introducción (la vídeo)".', ' " Introducción ( la vídeo ) " . '),
        ("U.S.A_\n[PAR]", "U . S . A _ [ PAR ] "),
        ("“no ASCII”\u00a0here", "“no ASCII”\u00a0here"),
    ],
)
def test_punctuation_is_set_apart(text, spaced):
    assert spaced_punctuation(text) == spaced


def test_squad(official_files, texts):
    examples = list(get_task("squad").examples("validation", str(official_files)))
    context = 'Ann \' s boat ( built in 1845 - 1846 ) is called " The Star " . It sank in Rome . '
    assert examples[0].inputs == f"question: What is Ann ' s boat called ? context: {context}"
    assert examples[0].targets == "The Star"
    assert examples[0].metadata == {"idx": "q1", "answers": ["The Star", ' " The Star " ']}
    assert examples[1].inputs.startswith("question: When was the boat built ? context: Ann ' s")
    assert examples[1].targets == "1845 - 1846"
    assert texts("squad", "train") == [(e.inputs, e.targets) for e in examples]


@pytest.mark.parametrize("name", MRQA_TASKS)
def test_mrqa(official_files, name):
    task = get_task(f"mrqa_{name}")
    (example,) = task.examples("validation", str(official_files))
    assert example.inputs == (
        "question: What is the boat called ? context: [ TLE ] Boats [ PAR ] "
        "The boat of Ann is called the Star . It sank near Rome in 1846 . "
    )
    assert (example.targets, example.metadata["answers"]) == ("the Star", ["the Star", "Star"])
    metadata = [{"targets": example.targets, **example.metadata}]
    assert task.evaluate(metadata, ["a star."]) == {"exact_match": 1.0, "f1": 1.0}


def test_mrqa_has_nothing_to_train_on(official_files):
    with pytest.raises(UserError, match="'mrqa_drop' has no split 'train'; it has validation"):
        list(get_task("mrqa_drop").examples("train", str(official_files)))


def test_bad_files_are_named(tmp_path):
    squad = tmp_path / "dev-v1.1.json"
    for text, message in (
        ("[1]", "expected a JSON object, found list"),
        ('{"data": ', "not JSON"),
        ('{"version": "2"}', "no field 'data'; found 'version'"),
        ('{"data": [{"paragraphs": 3}]}', "unexpected layout"),
    ):
        squad.write_text(text)
        with pytest.raises(UserError, match=f"{squad}: {message}"):
            list(get_task("squad").examples("validation", str(tmp_path)))

    question = {"qid": "1", "question": "Who?", "answers": []}
    line = json.dumps({"context": "Ann.", "qas": [question]})
    race = tmp_path / "RACE.jsonl.gz"
    race.write_bytes(gzip.compress(line.encode()))
    with pytest.raises(UserError, match=f"{race}:1: no answers; expected at least one"):
        list(get_task("mrqa_race").examples("validation", str(tmp_path)))
    race.write_bytes(gzip.compress(line.encode())[:-12])
    with pytest.raises(UserError, match=f"{race} is damaged .*download it again"):
        list(get_task("mrqa_race").examples("validation", str(tmp_path)))
    race.write_bytes(line.encode())
    with pytest.raises(UserError, match=f"{race} is damaged"):
        list(get_task("mrqa_race").examples("validation", str(tmp_path)))
    with pytest.raises(UserError, match="DuoRC.jsonl.gz is missing"):
        list(get_task("mrqa_duo_rc").examples("validation", str(tmp_path)))
