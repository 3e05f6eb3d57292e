"""A sweep's runs as a table."""

import csv

import pyarrow.parquet
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import pivot, read_rows, select, write_table
from prompt_tuning.sweeps.store import SweepStore


def record(seed, score, length=5, **summary):
    return {
        "settings": {"SEED": seed, "PROMPT_LENGTH": length, "gin_file": ["rte.gin"]},
        "folder": f"parts/{seed}",
        "versions": {"python": "3.11"},
        "summary": {
            "task": "rte",
            "model": "tiny",
            "score": score,
            "metrics": {"accuracy": score},
            "steps": 4,
            **summary,
        },
    }


@pytest.fixture
def rows(tmp_path):
    store = SweepStore(tmp_path)
    for seed, length, score in [(0, 5, 0.5), (1, 5, 0.7), (0, 20, 0.9)]:
        store.finish(f"{length}-{seed}", record(seed, score, length))
    return read_rows(tmp_path)


def test_a_row_for_each_run(rows):
    assert [row["run"] for row in rows] == ["20-0", "5-0", "5-1"]
    first = rows[0]
    assert (first["task"], first["score"], first["accuracy"]) == ("rte", 0.9, 0.9)
    assert (first["SEED"], first["gin_file"]) == (0, "['rte.gin']")
    assert (first["python version"], first["folder"]) == ("3.11", "parts/0")


def test_a_mixture_has_a_row_for_each_task_too(tmp_path):
    metrics = {"rte/accuracy": 0.5, "cb/accuracy": 0.8, "cb/f1": 0.6}
    summary = record(0, 0.6, task="both", metrics=metrics)
    SweepStore(tmp_path).finish("mixed", summary)
    found = {row["task"]: row["score"] for row in read_rows(tmp_path)}
    assert found == {"rte": 0.5, "cb": pytest.approx(0.7), "both": 0.6}


def test_tables_say_what_the_rows_do(rows, tmp_path):
    parquet, text = write_table(rows, tmp_path / "results")
    assert pyarrow.parquet.read_table(parquet).to_pylist() == rows
    with text.open() as file:
        assert [row["score"] for row in csv.DictReader(file)] == ["0.9", "0.5", "0.7"]


def test_means_over_what_is_not_named(rows):
    header, lines = pivot(rows, down=["task"], across="PROMPT_LENGTH")
    assert header == ["task", "5", "20"], "numbers in their order"
    assert lines == [["rte", "0.600 ± 0.141 (2)", "0.900"]]
    assert pivot(select(rows, {"SEED": "1"}), down=["PROMPT_LENGTH"], across=None)[1] == [
        ["5", "0.700"]
    ]


def test_what_the_table_does_not_have(rows, tmp_path):
    with pytest.raises(UserError, match="no column 'scor'.*'score'"):
        pivot(rows, down=[], across=None, value="scor")
    with pytest.raises(UserError, match="no column 'x'"):
        select(rows, {"x": "1"})
    with pytest.raises(UserError, match="no finished run"):
        read_rows(tmp_path / "nowhere")
