"""SuperGLUE's text against T5's own, its rows, and its metrics on the real files."""

import json
from collections import Counter

import pytest

from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.superglue import SUPERGLUE_TASKS
from prompt_tuning.errors import UserError
from prompt_tuning.tinyworld import generate

# The golden file's source of each task, as a split of a folder in the official layout.
GOLDEN = {
    "boolq": "validation",
    "cb": "validation",
    "copa": "validation",
    "rte": "validation",
    "wic": "validation",
    "axb": "test",
    "record": "train",  # one row an answer, as in the golden file
}


@pytest.fixture(scope="module")
def official(real_data, tmp_path_factory):
    """The real files, with FewGLUE's ReCoRD rows as its train split."""
    folder = tmp_path_factory.mktemp("official")
    for task in ("BoolQ", "CB", "COPA", "RTE", "WiC", "AX-b"):
        (folder / task).symlink_to(real_data / "superglue" / task)
    (folder / "ReCoRD").mkdir()
    few = real_data / "superglue" / "FewGLUE" / "ReCoRD"
    (folder / "ReCoRD" / "train.jsonl").symlink_to(few / "dev32.jsonl")
    (folder / "ReCoRD" / "val.jsonl").symlink_to(few / "dev32.jsonl")
    return str(folder)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize(("suffix", "key"), [("", "taskless_inputs"), ("_with_name", "inputs")])
def test_text_equals_t5s(real_data, official, name, suffix, key):
    golden = json.loads((real_data / "golden" / "t5_superglue_text.json").read_text())
    expected = golden[name]["examples"]
    assert len(expected) >= 24
    examples = list(get_task(f"superglue_{name}{suffix}").examples(GOLDEN[name], official))
    examples = examples[: len(expected)]
    assert [e.inputs for e in examples] == [e[key] for e in expected]
    assert [e.targets for e in examples] == [e["targets"] for e in expected]
    if name == "record":
        assert [e.metadata["answers"] for e in examples] == [e["answers"] for e in expected]


@pytest.mark.parametrize(
    ("name", "split", "counts"),
    [
        ("boolq", "validation", {"True": 2033, "False": 1237}),
        ("cb", "train", {"contradiction": 119, "entailment": 115, "neutral": 16}),
        ("copa", "train", {"choice1": 195, "choice2": 205}),
        ("rte", "train", {"entailment": 1249, "not_entailment": 1241}),
        ("rte", "test", {"<unk>": 3000}),
        ("wic", "train", {"False": 2714, "True": 2714}),
        ("axb", "test", {"not_entailment": 644, "entailment": 460}),
    ],
)
def test_labels_of_the_real_files(official, name, split, counts):
    examples = get_task(f"superglue_{name}").examples(split, official)
    assert Counter(example.targets for example in examples) == counts


@pytest.mark.parametrize("name", ["boolq", "cb", "copa", "rte", "wic", "record"])
def test_metrics_of_perfect_answers_on_the_real_files(official, name):
    task = get_task(f"superglue_{name}")
    examples = list(task.examples("validation", official))
    metadata = [{"targets": e.targets, **e.metadata} for e in examples]
    scores = task.evaluate(metadata, [e.targets for e in examples])
    assert set(scores.values()) == {1.0}


def test_metrics_of_constant_answers_on_the_real_files(official):
    """The majority baselines published with SuperGLUE: BoolQ 62.2 (dev), CB's F1 of one class."""
    boolq = get_task("superglue_boolq")
    metadata = [{"targets": e.targets} for e in boolq.examples("validation", official)]
    assert boolq.evaluate(metadata, ["True"] * 3270) == {"accuracy": pytest.approx(2033 / 3270)}

    cb = get_task("superglue_cb")
    metadata = [{"targets": e.targets} for e in cb.examples("validation", official)]
    counts = Counter(example["targets"] for example in metadata)
    said = counts["contradiction"]
    scores = cb.evaluate(metadata, ["contradiction"] * 56)
    assert scores["accuracy"] == pytest.approx(said / 56)
    assert scores["macro_f1"] == pytest.approx(2 * said / (said + 56) / 3)


def test_record_is_trained_by_answer_and_scored_by_query(tiny_superglue):
    task = get_task("superglue_record")
    trained = list(task.examples("train", str(tiny_superglue)))
    assert [e.targets for e in trained] == ["Ann", "Bob", "Bob"]
    assert trained[0].inputs == (
        "query: @placeholder travelled to Rome. entities: Ann, Bob, Rome "
        "passage: Ann met Bob in Rome. Ann is a nurse. Bob sings"
    )
    scored = list(task.examples("validation", str(tiny_superglue)))
    assert [e.metadata["answers"] for e in scored] == [["Ann", "Bob"], ["Bob"]]
    metadata = [{"targets": e.targets, **e.metadata} for e in scored]
    assert task.evaluate(metadata, ["the Bob", "Ann"]) == {"exact_match": 0.5, "f1": 0.5}


def test_multirc_rows_and_groups(tiny_superglue):
    task = get_task("superglue_multirc_with_name")
    examples = list(task.examples("validation", str(tiny_superglue)))
    assert examples[1].inputs == (
        "multirc question: What colour is Ann's cat? answer: Black "
        "paragraph: Sent 1: Ann has a cat. Sent 2: It is grey. "
    )
    assert [e.targets for e in examples] == ["True", "False", "True"]
    assert [e.metadata["group"] for e in examples] == [[4, 7], [4, 7], [4, 8]]
    metadata = [{"targets": e.targets, **e.metadata} for e in examples]
    assert task.evaluate(metadata, ["True", "True", "True"]) == {"f1a": 0.8, "exact_match": 0.5}


def test_an_unlabelled_row_of_wsc_needs_no_candidate():
    row = {"text": "Ann saw her .", "span2_text": "her", "span2_index": 2, "idx": 0, "label": None}
    (example,) = get_task("superglue_wsc").render(row, False)
    assert (example.inputs, example.targets) == ("Ann saw *her* .", "<unk>")


def test_wsc_is_trained_on_positive_examples_only(tiny_superglue):
    task = get_task("superglue_wsc_with_name")
    trained = list(task.examples("train", str(tiny_superglue)))
    assert [(e.inputs, e.targets) for e in trained] == [
        ("wsc: Mark told Pete many lies about himself, so *he* felt bad.", "Mark")
    ]
    scored = list(task.examples("validation", str(tiny_superglue)))
    assert [(e.targets, e.metadata["label"]) for e in scored] == [
        ("Mark", True),
        ("the cat", False),
    ]
    metadata = [{"targets": e.targets, **e.metadata} for e in scored]
    assert task.evaluate(metadata, ["Mark", "the dog"]) == {"accuracy": 1.0}
    assert task.evaluate(metadata, ["Mark", "cat"]) == {"accuracy": 0.5}


def test_axb_reads_its_sentences_as_premise_and_hypothesis(tiny_superglue):
    first = next(iter(get_task("superglue_axb_with_name").examples("test", str(tiny_superglue))))
    assert first.inputs == "rte hypothesis: The cat did not sit. premise: The cat sat."


@pytest.mark.parametrize("name", SUPERGLUE_TASKS)
def test_withheld_labels_are_not_scored(tiny_superglue, name):
    task = get_task(f"superglue_{name}")
    examples = list(task.examples("test", str(tiny_superglue)))
    assert {e.targets for e in examples} == {"<unk>"}
    with pytest.raises(UserError, match="withheld"):
        task.evaluate(
            [{"targets": e.targets, **e.metadata} for e in examples], ["x"] * len(examples)
        )


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            "RTE",
            {"premise": "A", "hypothesis": "B", "label": "maybe"},
            "label 'maybe' is not one of",
        ),
        (
            "RTE",
            {"premise": "A", "hypothesis": "B", "label": 0},
            "label 0 is not one of 'entailment'",
        ),
        ("RTE", {"premise": "A", "hypothesis": "B"}, "no label"),
        ("RTE", {"premise": "A", "label": "entailment"}, "no field 'hypothesis'"),
        (
            "RTE",
            {"premise": 1, "hypothesis": "B", "label": "entailment"},
            "'premise' is 1, expected",
        ),
        ("COPA", {"label": 2}, "label 2 is not one of 0, 1"),
        ("BoolQ", {"label": ["x"]}, r"label \['x'\] is not one of False, True"),
        ("MultiRC", {"passage": "text"}, "unexpected layout"),
        ("WSC", {"text": "A b."}, "no field 'target'"),
    ],
)
def test_bad_rows_are_named(tmp_path, task, row, message):
    (tmp_path / task).mkdir()
    path = tmp_path / task / "train.jsonl"
    path.write_text(json.dumps({"idx": 0} | row) + "\n")
    with pytest.raises(UserError, match=f"{path}:1: .*{message}"):
        list(get_task(f"superglue_{task.lower()}").examples("train", str(tmp_path)))


@pytest.mark.parametrize("name", SUPERGLUE_TASKS)
def test_tinyworld_is_read_by_the_same_code(monkeypatch, tiny_superglue, name):
    """From the generated folder by default, or from another in the same layout."""
    asked = []
    folder_of = lambda **given: asked.append(given) or tiny_superglue  # noqa: E731
    monkeypatch.setattr(generate, "tinyworld_folder", folder_of)
    task = get_task(f"tinyworld_{name}_with_name")
    expected = list(get_task(f"superglue_{name}_with_name").examples("train", str(tiny_superglue)))
    assert list(task.examples("train")) == expected
    assert list(task.examples("train", str(tiny_superglue))) == expected
    assert list(task.examples("train", "tinyworld:20000")) == expected
    assert asked == [{}, {"training_rows": 20000}]
    with pytest.raises(UserError, match="many does not exist.*or 'tinyworld:ROWS'"):
        list(task.examples("train", "tinyworld:many"))


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist; expected a folder with BoolQ/"):
        list(get_task("superglue_rte").examples("train", str(tmp_path / "no")))
    with pytest.raises(UserError, match="RTE is missing"):
        list(get_task("superglue_rte").examples("train", str(tmp_path)))
