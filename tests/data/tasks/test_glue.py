"""GLUE's text and labels, a golden example a task; the transfer pair; the real files.

The texts are what T5's preprocessors make of such rows (google-research/
text-to-text-transfer-transformer, `preprocessors.glue` and `preprocessors.stsb`).
"""

from collections import Counter

import pytest

from prompt_tuning.data.mixtures import get_tasks
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError

FIRST = "The long letter that nobody ever wrote was read aloud."
BOAT = ("Where can one buy a boat in Rome?", "In which shop of Rome are boats sold?")
LETTER = ("Who wrote the letter to Ann?", "When was the letter to Ann written?")

# The first development example of each task: T5's text with the task's name, and the answer.
GOLDEN = {
    "cola": (f"cola sentence: {FIRST}", "acceptable"),
    "sst2": (f"sst2 sentence: {FIRST} ", "positive"),
    "mrpc": (f"mrpc sentence1: {LETTER[0]} sentence2: {LETTER[1]}", "not_equivalent"),
    "qqp": (f"qqp question1: {BOAT[0]} question2: {BOAT[1]}", "duplicate"),
    "stsb": (f"stsb sentence1: {BOAT[0]} sentence2: {BOAT[1]}", "5.0"),
    "mnli": (f"mnli hypothesis: {BOAT[1]} premise: {BOAT[0]}", "neutral"),
    "mnli_mismatched": (f"mnli hypothesis: {BOAT[1]} premise: {BOAT[0]}", "neutral"),
    "qnli": (f"qnli question: {BOAT[0]} sentence: {BOAT[1]}", "entailment"),
    "rte": (f"rte sentence1: {BOAT[0]} sentence2: {BOAT[1]}", "entailment"),
    "wnli": (f"wnli sentence1: {BOAT[0]} sentence2: {BOAT[1]}", "entailment"),
    "ax": (f"mnli hypothesis: {BOAT[1]} premise: {BOAT[0]}", "neutral"),
    "qqp_from_mrpc": (f"qqp question1: {BOAT[0]} question2: {BOAT[1]}", "equivalent"),
    "mrpc_from_qqp": (f"mrpc sentence1: {LETTER[0]} sentence2: {LETTER[1]}", "not_duplicate"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_example(texts, name):
    split = "test" if name == "ax" else "validation"
    inputs, targets = GOLDEN[name]
    assert texts(f"glue_{name}_with_name", split)[0] == (inputs, targets)
    _, taskless = inputs.split(" ", 1)
    assert texts(f"glue_{name}", split)[0] == (taskless, targets)


def test_glue_is_its_nine_tasks_and_their_test_labels_are_withheld(texts):
    names = [task.name for task in get_tasks("glue")]
    assert len(names) == 9
    for name in (*names, "glue_mnli_mismatched"):
        assert {target for _, target in texts(name, "test")} == {"<unk>"}


@pytest.mark.parametrize(
    ("score", "said"),
    # Ties go to the even fifth, in single precision, as TensorFlow rounds them.
    [
        ("0", "0.0"),
        ("1.66", "1.6"),
        ("2.8", "2.8"),
        ("0.5", "0.4"),
        ("0.7", "0.8"),
        ("5.000", "5.0"),
    ],
)
def test_similarities_are_said_in_fifths(official_files, tmp_path, score, said):
    (tmp_path / "STS-B").mkdir()
    lines = (official_files / "STS-B" / "dev.tsv").read_text().splitlines()
    row = lines[1].split("\t")
    (tmp_path / "STS-B" / "dev.tsv").write_text(
        "\n".join([lines[0], "\t".join([*row[:-1], score])])
    )
    (example,) = get_task("glue_stsb").examples("validation", str(tmp_path))
    assert example.targets == said
    assert example.metadata["score"] == pytest.approx(float(score))


def test_mrpcs_development_set_is_what_the_ids_list(texts):
    assert [len(texts("glue_mrpc", split)) for split in ("train", "validation", "test")] == [
        2,
        1,
        3,
    ]


def test_cut_off_rows_are_left_out_of_qqp_alone(official_files, tmp_path):
    assert len(list(get_task("glue_qqp").examples("train", str(official_files)))) == 3
    (tmp_path / "RTE").mkdir()
    path = tmp_path / "RTE" / "train.tsv"
    path.write_text("index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n1\tA\n")
    with pytest.raises(UserError, match=f"{path}:3: 2 columns; expected 4: index, sentence1"):
        list(get_task("glue_rte").examples("train", str(tmp_path)))


@pytest.mark.parametrize("label", ["2", "equal", ""])
def test_bad_label_is_named(tmp_path, label):
    (tmp_path / "RTE").mkdir()
    path = tmp_path / "RTE" / "train.tsv"
    path.write_text(f"index\tsentence1\tsentence2\tlabel\n0\tA\tB\t{label}\n")
    with pytest.raises(
        UserError, match=f"{path}:2: label '{label}' is not one of 0, 1, entailment"
    ):
        list(get_task("glue_rte").examples("train", str(tmp_path)))


def test_ax_has_labels_only_in_the_full_file(official_files, tmp_path, texts):
    (tmp_path / "diagnostic").mkdir()
    (tmp_path / "diagnostic" / "diagnostic.tsv").symlink_to(
        official_files / "diagnostic" / "diagnostic.tsv"
    )
    blind = list(get_task("glue_ax").examples("test", str(tmp_path)))
    assert [(example.inputs, "<unk>") for example in blind] == [
        (inputs, "<unk>") for inputs, _ in texts("glue_ax", "test")
    ]
    assert {example.targets for example in blind} == {"<unk>"}


def test_missing_folder_and_file(tmp_path):
    with pytest.raises(UserError, match="no does not exist; expected a folder with CoLA/.*'tfds'"):
        list(get_task("glue_rte").examples("train", str(tmp_path / "no")))
    with pytest.raises(UserError, match="diagnostic is missing"):
        list(get_task("glue_ax").examples("test", str(tmp_path)))


def scored(task, data_dir, predictions) -> dict[str, float]:
    metadata = [
        {"targets": e.targets, **e.metadata} for e in task.examples("validation", str(data_dir))
    ]
    return task.evaluate(metadata, predictions)


def test_transfer_takes_either_tasks_label_words(real_data):
    """MRPC's development set answered "yes" throughout: 279 of 408 are, F1 2*279/(279+408)."""
    majority = {"f1": pytest.approx(558 / 687), "accuracy": pytest.approx(279 / 408)}
    task = get_task("glue_mrpc_from_qqp")
    assert task.labels == ("not_duplicate", "duplicate")
    for word in ("duplicate", "equivalent"):
        assert scored(task, real_data / "glue", [word] * 408) == majority
    assert scored(get_task("glue_mrpc"), real_data / "glue", ["equivalent"] * 408) == majority
    # The task itself doesn't take the other's words, and nonsense is wrong in both.
    wrong = {"f1": 0.0, "accuracy": 0.0}
    assert scored(get_task("glue_mrpc"), real_data / "glue", ["duplicate"] * 408) == wrong
    assert scored(task, real_data / "glue", ["yes"] * 408) == wrong


def test_the_real_files(real_data):
    counts = {
        ("sst2", "train"): {"positive": 37569, "negative": 29780},
        ("sst2", "validation"): {"positive": 444, "negative": 428},
        ("sst2", "test"): {"<unk>": 1821},
        ("mrpc", "train"): {"equivalent": 2474, "not_equivalent": 1194},
        ("mrpc", "validation"): {"equivalent": 279, "not_equivalent": 129},
        ("mrpc", "test"): {"<unk>": 1725},
    }
    for (name, split), expected in counts.items():
        examples = get_task(f"glue_{name}").examples(split, str(real_data / "glue"))
        assert Counter(example.targets for example in examples) == expected, (name, split)


def test_mrpc_from_glues_own_tsv_is_the_same(real_data, tmp_path):
    (tmp_path / "MRPC").mkdir()
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / "MRPC" / name).symlink_to(real_data / "glue" / "MRPC" / name)
    task = get_task("glue_mrpc")

    def texts(data_dir, split):
        return {(e.inputs, e.targets) for e in task.examples(split, str(data_dir))}

    for split in ("validation", "test"):
        assert texts(tmp_path, split) == texts(real_data / "glue", split)
    assert len(texts(real_data / "glue", "train") - texts(tmp_path, "train")) == 1


def test_qqps_real_pairs(real_data, tmp_path):
    (tmp_path / "QQP").symlink_to(real_data / "glue" / "QQP-sample" / "k-shot" / "16-13")
    examples = list(get_task("glue_qqp").examples("validation", str(tmp_path)))
    counts = Counter(example.targets for example in examples)
    assert counts == {"duplicate": 16, "not_duplicate": 16}
    assert examples[0].inputs == (
        "question1: What, according to you, is the best Disney film? "
        "question2: What is the best Disney movie?"
    )
