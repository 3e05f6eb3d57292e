"""A user's own CSV, TSV and jsonl files: rows, splits, labels, and every mistake in one line."""

import gzip
import json
import random

import pytest

from prompt_tuning.data.templates import Template
from prompt_tuning.data.user_files import UserFiles, user_task
from prompt_tuning.errors import UserError

ROWS = [
    {"text": 'Dull, "very" dull.', "label": "bad", "id": "a"},
    {"text": "A fine\nfilm.", "label": "good", "id": "b"},
    {"text": "Ça va.", "label": "good", "id": "c"},
]
CSV = 'text,label,id\r\n"Dull, ""very"" dull.",bad,a\r\n"A fine\nfilm.",good,b\r\nÇa va.,good,c\r\n'
TSV = 'text\tlabel\tid\nDull, "very" dull.\tbad\ta\nA fine film.\tgood\tb\nÇa va.\tgood\tc\n'


def source(path, inputs="review: {text}", targets="{label}", **options):
    files = options.pop("files", {"train": path, "validation": path})
    return UserFiles(
        files=files,
        inputs=Template(inputs, "input template"),
        targets=Template(targets, "target template"),
        **options,
    )


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("r.csv", CSV, (2, 3, 5)),
        ("excel.csv", "\ufeff" + CSV, (2, 3, 5)),
        ("R.TSV", TSV, (2, 3, 4)),
        ("r.jsonl", "\n".join(json.dumps(row) for row in ROWS), (1, 2, 3)),
        ("r.csv.gz", gzip.compress(CSV.encode()), (2, 3, 5)),
    ],
    ids=["csv", "csv with a byte order mark", "tsv", "jsonl", "csv.gz"],
)
def test_each_format_gives_the_same_examples(tmp_path, name, content, lines):
    path = write(tmp_path / name, content)
    rows = list(source(path).rows("train"))
    assert [where for where, _ in rows] == [f"{path}:{line}" for line in lines]
    task = user_task(source(path))
    assert task.name == name.partition(".")[0]
    assert task.labels == ("bad", "good")
    examples = list(task.examples("train"))
    assert examples[0].inputs == 'review: Dull, "very" dull.'
    assert " ".join(examples[1].inputs.split()) == "review: A fine film."
    assert [example.targets for example in examples] == ["bad", "good", "good"]
    assert examples[2].metadata == {"row": {"id": "c"}}, "columns that no template uses"
    metadata = [{"targets": example.targets} for example in examples]
    assert task.evaluate(metadata, ["bad", "bad", "good"]) == {"accuracy": pytest.approx(2 / 3)}


def many(path, order, copies=1):
    rows = [json.dumps({"text": f"text {i}", "label": "ab"[i % 2]}) for i in order] * copies
    return write(path, "\n".join(rows))


def test_rows_are_held_out_by_a_hash(tmp_path):
    order = list(range(400))
    path = many(tmp_path / "all.jsonl", order)

    def texts(path, split):
        return {row["text"] for _, row in source(path, files={"train": path}).rows(split)}

    train, held_out = texts(path, "train"), texts(path, "validation")
    assert train | held_out == {f"text {i}" for i in order}
    assert not train & held_out
    assert 20 < len(held_out) < 60
    random.Random(0).shuffle(order)
    shuffled = many(tmp_path / "shuffled.jsonl", order, copies=2)
    assert texts(shuffled, "validation") == held_out
    half = source(path, files={"train": path}, held_out=0.5)
    assert 160 < sum(1 for _ in half.rows("validation")) < 240
    assert {row["text"] for _, row in half.rows("validation")} > held_out


def test_splits_are_those_of_the_files(tmp_path):
    path = write(tmp_path / "r.csv", CSV)
    assert source(path, files={"train": path}).splits == ("train", "validation")
    files = {"train": path, "test": write(tmp_path / "t.csv", "text\nWhat?\n")}
    assert source(path, files=files).splits == ("train", "validation", "test")
    task = user_task(source(path, files={**files, "validation": path}))
    (example,) = task.examples("test")
    assert (example.inputs, example.targets) == ("review: What?", "<unk>")


def test_labels_are_found_or_given(tmp_path):
    path = write(tmp_path / "r.csv", CSV)
    given = user_task(source(path), labels=["bad", "fair"])
    with pytest.raises(UserError, match=r"r.csv:3: label 'good' is not one of bad, fair"):
        list(given.examples("train"))
    free = user_task(source(path), labels=())
    assert free.labels is None
    metadata = [{"targets": "a b c d"}]
    assert free.evaluate(metadata, ["a b c d"]) == dict.fromkeys(
        ("rouge1", "rouge2", "rougeLsum"), 1.0
    )
    rows = "".join(f"text {i},answer {i}\n" for i in range(21))
    many_answers = write(tmp_path / "many.csv", "text,label\n" + rows)
    assert user_task(source(many_answers)).labels is None


def test_metrics(tmp_path):
    path = write(tmp_path / "r.csv", CSV)
    metadata = [{"targets": target} for target in ("bad", "good", "good", "bad")]
    for name in ("accuracy", "macro_f1", "matthews"):
        (score,) = (
            user_task(source(path), metric=name)
            .evaluate(metadata, ["bad", "good", "good", "bad"])
            .values()
        )
        assert score == 1
    with pytest.raises(
        UserError, match="Unknown metric 'f1' for 2 labels; expected one of accuracy"
    ):
        user_task(source(path), metric="f1")
    with pytest.raises(UserError, match="Unknown metric 'matthews' for free text"):
        user_task(source(path), labels=(), metric="matthews")


def test_templates():
    row = {"a b": "x", "n": 3, "ok": True, "none": None}
    assert Template("{{{a b}}} is {n}, {ok} ", "t").render(row) == "{x} is 3, True"
    assert Template("{a b}: {n}{a b}", "t").columns == ("a b", "n", "a b")
    assert Template("a {none}.", "t").render(row) == "a ."
    with pytest.raises(ValueError, match=r"column 'list' is \[\]; expected text or a number"):
        Template("{list}", "t").render({"list": []})
    for bad in ("no column", "{open", "close}", "{}", "{{text}}", "{a {b}}"):
        with pytest.raises(UserError, match="The input template '.*' is not a template: write"):
            Template(bad, "input template")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.csv", "", "r.csv is empty; expected rows below a line that names the columns"),
        ("r.csv", "text,label\n", "r.csv is empty; expected rows below"),
        ("r.jsonl", "\n", "r.jsonl is empty; expected rows."),
        (
            "r.csv",
            "txt,label\na,b\n",
            "r.csv:2: no column 'text', which the input template uses; found 'txt', 'label'. Did "
            "you mean 'txt'",
        ),
        ("r.csv", "text,lable\na,b\n", "no column 'label', which the target template uses"),
        ("r.csv", "text,label\na,b,c\n", "r.csv:2: 3 fields, but the first line names 2 columns"),
        ("r.tsv", "text\tlabel\na\tb\na\n", "r.tsv:3: 1 fields, but the first line names 2"),
        ("r.csv", 'text,label\n"a"b,c\n', "r.csv:2: malformed row"),
        ("r.csv", 'text,label\na,b\n"a\nb,c\nd,e\n', "r.csv:3: malformed row (unexpected end"),
        ("r.csv", "text,label,text\na,b,c\n", "r.csv:1: the column 'text' is named twice"),
        ("r.csv", "text,label\na,\n", "r.csv:2: the target template '{label}' produces no text"),
        ("r.jsonl", '{"text": "a", "label": "b"}\n{"text": ', "r.jsonl:2: not JSON"),
        ("r.jsonl", r'{"text": "a\ud800", "label": "b"}', r"r.jsonl:1: '\ud800' is half a"),
        ("r.jsonl", '{"a": ' * 99_999, "r.jsonl:1: not JSON"),
        ("r.jsonl", '["a"]', "r.jsonl:1: expected a JSON object"),
        ("r.jsonl", '{"text": "a", "label": null}', "r.jsonl:1: the target template '{label}'"),
        ("r.jsonl", '{"text": ["a"], "label": "b"}', "r.jsonl:1: column 'text' is ['a']"),
        ("r.csv", b"text,label\n\xff,b\n", "r.csv is not UTF-8"),
        ("r.csv.gz", b"text", "r.csv.gz is damaged"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(tmp_path, name, content, told):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as raised:
        list(user_task(source(path)).examples("train"))
    message = str(raised.value)
    assert told in message and message.startswith(str(path)) and "\n" not in message


def test_an_answer_is_whole_or_withheld(tmp_path):
    files = {
        "train": write(tmp_path / "r.csv", "text,label,why\na,yes,it is\nb,no,it is not\n"),
        "test": write(tmp_path / "t.csv", "text,label,why\na,yes,it is\nb, ,\n"),
    }
    task = user_task(source(None, targets="{label}, as {why}", files=files))
    assert [example.targets for example in task.examples("test")] == ["yes, as it is", "<unk>"]
    for split, rest in {"test": "or leave every column of the answer", "train": ""}.items():
        write(files[split], "text,label,why\na,yes,it is\nb,no,\n")
        told = f"{files[split]}:3: column 'why', which the target template names, is empty; fill it"
        with pytest.raises(UserError, match=told) as raised:
            list(task.examples(split))
        assert rest in str(raised.value)
    # One column, and words around it that are no answer by themselves.
    write(files["train"], "text,label\na,yes\nb,\n")
    with pytest.raises(UserError, match="r.csv:3: column 'label', which the target .* is empty"):
        user_task(source(None, targets="It is {label}", files=files))


def test_a_row_to_be_answered_needs_no_answer(tmp_path):
    task = user_task(source(write(tmp_path / "r.csv", CSV)))
    assert task.inputs_of({"text": "Fine."}) == "review: Fine."


def test_other_mistakes(tmp_path):
    path = write(tmp_path / "r.csv", CSV)
    with pytest.raises(UserError, match="r.txt doesn't end in .csv, .tsv, .jsonl"):
        source(tmp_path / "r.txt")
    with pytest.raises(UserError, match="held_out is 1.5; expected a share such as 0.1"):
        source(path, held_out=1.5)
    with pytest.raises(UserError, match="Cannot read .*no.csv: .*no.csv is missing"):
        user_task(source(tmp_path / "no.csv"))
    with pytest.raises(
        UserError, match="too few different rows to hold out 0.01 of them .*VALIDATION_FILE"
    ):
        list(source(path, files={"train": path}, held_out=0.01).rows("validation"))


def test_several_files_are_one_split(tmp_path):
    a = write(tmp_path / "my-a.csv", "text,label\na,yes\n")
    b = write(tmp_path / "b.jsonl", '{"label": "no", "text": "b"}')
    task = user_task(source(None, files={"train": (a, b), "validation": a}))
    assert [(e.inputs, e.targets) for e in task.examples("train")] == [
        ("review: a", "yes"),
        ("review: b", "no"),
    ]
    assert task.name == "my_a", "a name that SeqIO takes"
    write(b, "")
    with pytest.raises(UserError, match="b.jsonl is empty"):
        list(task.examples("train"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.csv", "text,label\na,1\nb,0\n", {0: "bad", 1: "good"}),
        ("r.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}', {0: "bad", 1: "good"}),
        ("r.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}',
         {True: "good", False: "bad"}),
        ("r.jsonl", '{"text": "a", "label": 1.0}\n{"text": "b", "label": 0.0}',
         {0: "bad", 1: "good"}),
    ],
)  # fmt: skip
def test_label_words_stand_for_numbers(tmp_path, name, content, words):
    task = user_task(source(write(tmp_path / name, content), label_words=words))
    assert task.labels == ("bad", "good")
    assert [example.targets for example in task.examples("train")] == ["good", "bad"]
    narrow = source(tmp_path / name, label_words={7: "other"})
    told = r":\d: column 'label' is .*, for which label_words has no word; it has 7"
    with pytest.raises(UserError, match=told):
        user_task(narrow)


def test_sets_of_labels_and_numbers_are_no_classes(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        '{"text": "a", "label": ["red", "big"]}\n{"text": "b", "label": ["big"]}',
    )
    task = user_task(source(path), metric="multi_label")
    assert task.labels is None
    examples = [{"targets": example.targets} for example in task.examples("train")]
    assert examples[0] == {"targets": "red, big"}
    assert set(task.evaluate(examples, ["big,red", "big"]).values()) == {1.0}
    path = write(tmp_path / "n.csv", "text,label\na,1\nb,2.5\nc,-3\n")
    task = user_task(source(path), metric=["pearson", "spearman"])
    assert task.labels is None
    examples = [{"targets": example.targets} for example in task.examples("train")]
    assert task.evaluate(examples, ["1", "2.5", "-3"]) == {
        "pearson": pytest.approx(1),
        "spearman": pytest.approx(1),
    }
    write(path, "text,label\na,1\nb,much\n")
    with pytest.raises(
        UserError, match="n.csv:3: the answer 'much' is not a number, as the metric"
    ):
        list(task.examples("train"))
