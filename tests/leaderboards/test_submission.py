"""The leaderboards' files: official labels, row counts, and what is refused."""

import json
import zipfile

import pytest

from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError
from prompt_tuning.leaderboards.submission import (
    check_submission,
    leaderboard_task,
    read_predictions,
    write_submission,
)
from prompt_tuning.leaderboards.tables import GLUE, LEADERBOARDS, SUPERGLUE

WSC = {"targets": "<unk>", "candidate": "the old man"}
MULTIRC_IDX = [
    (p, q, 10 * q + a) for p in range(17) for q in range(p * 100, p * 100 + 60) for a in range(10)
][:9693]


def predictions(benchmark, name):
    """One row for each of the official test split, its labels in turn."""
    entry = LEADERBOARDS[benchmark][name]
    words = list(entry.labels)
    for i in range(entry.rows):
        row = {"task": f"{benchmark}_{name}", "idx": i, "targets": "<unk>"}
        if entry.kind == "multirc":
            paragraph, question, answer = MULTIRC_IDX[i]
            row["idx"] = {"paragraph": paragraph, "question": question, "answer": answer}
        elif entry.kind == "record":
            row |= {"idx": {"passage": i // 3, "query": i}, "prediction": f"Ann\u2028 Lée {i}"}
        elif entry.kind == "wsc":
            row |= {**WSC, "prediction": ("man", "the dog", "")[i % 3]}
        elif entry.kind == "score":
            row["prediction"] = "3.8"
        yield {"prediction": words[i % len(words)] if words else "", **row}


def everything(benchmark):
    """All but QQP, whose 390,965 rows would take half a minute here."""
    names = [name for name in LEADERBOARDS[benchmark] if name != "qqp"]
    return [row for name in names for row in predictions(benchmark, name)]


def lines(archive, file):
    return [json.loads(line) for line in archive.read(file).decode().split("\n")[:-1]]


def test_superglue_has_each_official_file(tmp_path):
    path = tmp_path / "submission.zip"
    counts = write_submission(path, "superglue", reversed(everything("superglue")))
    assert check_submission(path, "superglue") == counts
    assert counts == {
        "BoolQ.jsonl": 3245,
        "CB.jsonl": 250,
        "COPA.jsonl": 500,
        "MultiRC.jsonl": 9693,
        "ReCoRD.jsonl": 10000,
        "RTE.jsonl": 3000,
        "WiC.jsonl": 1400,
        "WSC.jsonl": 146,
        "AX-b.jsonl": 1104,
        "AX-g.jsonl": 356,
    }
    with zipfile.ZipFile(path) as archive:
        firsts = {name: lines(archive, name)[:3] for name in counts}
        assert len(lines(archive, "MultiRC.jsonl")) == 17
    assert firsts["BoolQ.jsonl"][:2] == [{"idx": 0, "label": "false"}, {"idx": 1, "label": "true"}]
    assert firsts["WiC.jsonl"][1] == {"idx": 1, "label": "true"}
    assert [row["label"] for row in firsts["WSC.jsonl"]] == ["True", "False", "False"]
    assert firsts["COPA.jsonl"][1] == {"idx": 1, "label": 1}
    assert firsts["CB.jsonl"][0] == {"idx": 0, "label": "entailment"}
    assert (
        firsts["RTE.jsonl"][1] == firsts["AX-g.jsonl"][1] == {"idx": 1, "label": "not_entailment"}
    )
    assert firsts["ReCoRD.jsonl"][2] == {"idx": 2, "label": "Ann\u2028 Lée 2"}
    paragraph = firsts["MultiRC.jsonl"][0]
    assert (paragraph["idx"], paragraph["passage"]["questions"][1]["idx"]) == (0, 1)
    assert paragraph["passage"]["questions"][0]["answers"][:2] == [
        {"idx": 0, "label": 0},
        {"idx": 1, "label": 1},
    ]


def test_glue_has_each_official_file(tmp_path):
    path = tmp_path / "glue.zip"
    rows = everything("glue")
    refuse(rows, "lacks QQP.tsv: the leaderboard", tmp_path, "glue", partial=False)
    counts = write_submission(path, "glue", rows, partial=True)
    assert check_submission(path, "glue", partial=True) == counts
    assert set(counts) == {
        "CoLA.tsv",
        "SST-2.tsv",
        "MRPC.tsv",
        "STS-B.tsv",
        "MNLI-m.tsv",
        "MNLI-mm.tsv",
        "QNLI.tsv",
        "RTE.tsv",
        "WNLI.tsv",
        "AX.tsv",
    }
    with zipfile.ZipFile(path) as archive:
        starts = {name: archive.read(name).decode().split("\n")[:3] for name in counts}
    assert starts["MRPC.tsv"] == ["index\tprediction", "0\t0", "1\t1"]
    assert starts["MNLI-mm.tsv"] == ["index\tprediction", "0\tentailment", "1\tneutral"]
    assert starts["STS-B.tsv"][1] == "0\t3.800"


@pytest.mark.parametrize("benchmark", ["superglue", "glue"])
def test_the_labels_are_those_of_the_tasks(benchmark):
    for name, entry in LEADERBOARDS[benchmark].items():
        labels = get_task(f"{benchmark}_{name}").labels
        if entry.labels and entry.kind != "wsc":
            assert set(labels) == set(entry.labels), name
    assert leaderboard_task(benchmark, f"{benchmark}_rte_with_name") == "rte"
    assert leaderboard_task(benchmark, "tinyworld_rte") is None


def refuse(rows, match, tmp_path, benchmark="superglue", partial=True):
    path = tmp_path / "refused.zip"
    with pytest.raises(UserError, match=match) as raised:
        write_submission(path, benchmark, rows, partial=partial)
    assert "\n" not in str(raised.value)
    assert not path.exists()


def test_predictions_that_are_refused(tmp_path):
    rows = list(predictions("superglue", "cb"))
    refuse(rows[:-1], "CB.jsonl has 249 predictions.*has 250 rows", tmp_path)
    refuse([*rows, rows[0]], "superglue_cb: idx 0 is predicted twice", tmp_path)
    wrong = [{**rows[0], "prediction": "yes"}, *rows[1:]]
    refuse(
        wrong, "superglue_cb: .*idx 0 is 'yes'; expected one of the labels.*method=rank", tmp_path
    )
    refuse([{**rows[0], "idx": "x"}], "idx is 'x', not the official index", tmp_path)
    refuse([{**rows[0], "task": "glue_cola"}], "'glue_cola' has no file in a superglue", tmp_path)
    refuse(rows, "lacks BoolQ.jsonl, COPA.jsonl, .*--partial", tmp_path, partial=False)
    score = [{**row, "prediction": "six"} for row in predictions("glue", "stsb")]
    refuse(score, "is 'six'; expected a number from 0 to 5", tmp_path, "glue")


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


ROW = '{"idx": %d, "label": "%s"}\n'


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"../CB.jsonl": ""}, "no file '../CB.jsonl'"),
        ({"CB.tsv": ""}, "no file 'CB.tsv'"),
        ({"predictions/": ""}, "no file 'predictions/'"),
        ({"./CB.jsonl": ""}, "no file './CB.jsonl'"),
        ({"CB.jsonl": "{"}, r"CB.jsonl:1: not a row"),
        ({"CB.jsonl": "[" * 100_000}, r"CB.jsonl:1: not a row.*nested more deeply than Python"),
        ({"CB.jsonl": ROW % (0, "entailment") + ROW % (0, "neutral")}, "CB.jsonl:2: .*twice"),
        (
            {"CB.jsonl": ROW % (0, "Entailment")},
            "CB.jsonl:1: 'Entailment' is not an official label",
        ),
        (
            {"COPA.jsonl": '{"idx": 0, "label": true}'},
            "COPA.jsonl:1: True is not an official label",
        ),
        ({"COPA.jsonl": '{"idx": "0", "label": 1}'}, "COPA.jsonl:1: not a row"),
        ({"MultiRC.jsonl": '{"idx": 0, "label": 1}'}, "MultiRC.jsonl:1: not a paragraph"),
        ({"AX-g.jsonl": ROW % (0, "entailment")}, "AX-g.jsonl has 1 predictions.*has 356 rows"),
        ({"CB.jsonl": b"\xff"}, "can't be read as a zip of text files"),
        ({}, "lacks BoolQ.jsonl"),
    ],
)
def test_zips_that_are_refused(tmp_path, files, match):
    path = zipped(tmp_path / "bad.zip", **files)
    with pytest.raises(UserError, match=match):
        check_submission(path, "superglue", partial=True)


def test_glue_files_that_are_refused(tmp_path):
    for content, match in (
        ("0\t1\n", "CoLA.tsv:1: .*expected the header index, prediction"),
        ("index\tprediction\n0\n", "CoLA.tsv:2: .*an index and a prediction"),
        (f"index\tprediction\n{'9' * 5000}\t1\n", "CoLA.tsv:2: .*an index and a prediction"),
        (
            "index\tprediction\n0\t2\n",
            "CoLA.tsv:2: '2' is not an official label; expected '0', '1'",
        ),
    ):
        path = zipped(tmp_path / "bad.zip", **{"CoLA.tsv": content})
        with pytest.raises(UserError, match=match):
            check_submission(path, "glue", partial=True)


def test_a_zip_that_is_damaged_within_or_has_a_file_twice(tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("CB.jsonl", ROW % (0, "neutral"))
    content = bytearray(path.read_bytes())
    content[38:48] = b"\xff" * 10  # the first bytes of what is packed
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad.zip can't be read as a zip"):
        check_submission(path, "superglue", partial=True)

    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("CB.jsonl", "")
        archive.writestr("CB.jsonl", "")
    with pytest.raises(UserError, match="contains 'CB.jsonl' twice"):
        check_submission(path, "superglue", partial=True)


def test_what_is_no_zip(tmp_path):
    (tmp_path / "no.zip").write_text("no")
    for name in ("no.zip", "missing.zip"):
        with pytest.raises(UserError, match=f"{name} can't be read as a zip"):
            check_submission(tmp_path / name, "glue")


def test_rows_that_are_no_predictions(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"task": "superglue_cb", "prediction": "neutral"}\n')
    with pytest.raises(UserError, match="predictions.jsonl:1: no 'idx'; expected the rows that"):
        list(read_predictions([path]))
    path.write_text('{"task": "superglue_cb", "idx": 0, "prediction": ["neutral"]}\n')
    with pytest.raises(
        UserError, match="predictions.jsonl:1: 'prediction' is .* expected the rows"
    ):
        list(read_predictions([path]))


def test_row_counts_are_those_of_the_real_test_files(real_data):
    for name, folder in (("boolq", "BoolQ"), ("cb", "CB"), ("copa", "COPA"), ("rte", "RTE"),
                         ("wic", "WiC"), ("axb", "AX-b")):  # fmt: skip
        file = "AX-b.jsonl" if name == "axb" else "test.jsonl"
        rows = (real_data / "superglue" / folder / file).read_text().splitlines()
        assert {int(json.loads(row)["idx"]) for row in rows} == set(range(SUPERGLUE[name].rows))
    for name, folder in (("sst2", "SST-2"), ("mrpc", "MRPC")):
        rows = (real_data / "glue" / folder / "test.tsv").read_text(encoding="utf-8").splitlines()
        assert len(rows) - 1 == GLUE[name].rows
