"""What is said of the data before training: counts, labels, and likely mistakes."""

import numpy as np
import pytest

from prompt_tuning.data.findings import findings
from prompt_tuning.data.templates import Template
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.user_files import UserFiles, user_task


def split(task, name) -> TokenizedSplit:
    """A split as `tokenized` returns it, its characters for tokens."""
    examples = list(task.examples(name))
    rows = {
        side: [np.array([*map(ord, getattr(example, side))], np.int32) for example in examples]
        for side in ("inputs", "targets")
    }
    ragged = {
        side: Ragged(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))
        for side, ids in rows.items()
    }
    lines = "\n".join(f'{{"targets": "{example.targets}"}}' for example in examples)
    return TokenizedSplit(task=task.name, split=name, metadata_json=lines.encode(), **ragged)


@pytest.fixture
def found(tmp_path):
    def lines(train, validation=None, template="{text}", **options):
        files = {"train": tmp_path / "train.csv", "validation": tmp_path / "validation.csv"}
        files["train"].write_text("text,label\n" + train)
        if validation is None:
            del files["validation"]
        else:
            files["validation"].write_text("text,label\n" + validation)
        source = UserFiles(
            files=files,
            inputs=Template(template, "input template"),
            targets=Template("{label}", "target template"),
        )
        task = user_task(source, **options)
        return findings([task], [split(task, "train")], [split(task, "validation")])

    return lines


def test_counts_come_first(found):
    assert found("a,yes\nb,no\nc,yes\n", "d,no\n") == [
        "train: 3 training examples, 1 validation examples; labels: yes (2), no (1)."
    ]
    (line,) = found("".join(f"text {i},{'ab'[i % 2]}\n" for i in range(100)))
    assert "100" not in line and "held out for validation" in line
    many = "".join(f"text {i},label {i % 12}\n" for i in range(24))
    (line,) = found(many, "d,label 0\n")
    assert line.endswith("label 9 (2), and 2 more.")
    assert found("a,one\nb,two\n", "c,three\n", labels=()) == [
        "train: 2 training examples, 1 validation examples."
    ]


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ("a,yes\nb,yes\n", "train has one label only, 'yes'"),
        ("a,YES\nb,yes\nc,no\n", "The labels 'YES' and 'yes' differ only in case or spaces"),
        ("a,all right\nb,allright\nc,no\n", "The labels 'all right' and 'allright' differ only"),
        ("a,0\nb,1\n", "The labels are numbers (0, 1), which mean less to a model than words"),
        ("a,yes\n,no\n,yes\n", "The column 'text' is empty in 2 of 3 training rows."),
    ],
)
def test_likely_mistakes_are_warned_of(found, train, told):
    first = train.partition("\n")[0].partition(",")[2]
    _, line = found(train, f"other,{first}\n", template="review: {text}")
    assert line.startswith(f"Warning: {told}")


def test_leaks_are_warned_of(found):
    rows = "a,yes\nb,no\n"
    _, line = found(rows, "c,no\n", template="{text} {label}")
    assert line == (
        "Warning: The input template '{text} {label}' contains the column 'label', which is the "
        "answer in the target template."
    )
    _, line = found(rows, rows)
    assert line.startswith("Warning: All 2 examples of validation are also training examples")
    _, line = found(rows, "b,no\nc,no\n")
    assert line.startswith("Warning: 1 of 2 examples of validation are also training examples")
