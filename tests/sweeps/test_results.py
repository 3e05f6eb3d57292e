"""A sweep's runs as a table."""

import csv

import pyarrow.parquet
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.grid import short_hash
from prompt_tuning.sweeps.results import pivot, provenance, read_rows, select, write_table
from prompt_tuning.sweeps.store import SweepStore


def record(seed, score, length=5, **summary):
    return {
        "settings": {"SEED": seed, "PROMPT_LENGTH": length, "gin_file": ["rte.gin"]},
        "folder": f"parts/{seed}",
        "config": {
            "METHOD": "@soft_prompt",
            "train.method": "%METHOD",
            "soft_prompt.initializer": "@paper/class_label()",
            "SEED": str(seed),
        },
        "versions": provenance(
            {
                "python": "3.11",
                "platform": "a kernel",
                "packages": {"jax": "0.10", "numpy": "2"},
                "devices": ["H100", "H100"],
                "git_commit": "abc",
            },
            "2026-01-02T03:04:05+00:00",
        ),
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
    assert (first["python"], first["folder"]) == ("3.11", "parts/0")
    assert (first["git_commit"], first["jax"], first["device"]) == ("abc", "0.10", "H100")
    assert first["date"].startswith("2026-01-02") and "a kernel" not in first.values()


def test_what_was_trained_and_how_it_started(rows):
    assert {(row["method"], row["initializer"]) for row in rows} == {("soft_prompt", "class_label")}
    # The hash is that of the run's name: one for each configuration, not for each prompt length
    # here, which this config leaves out.
    assert rows[0]["config"] == rows[1]["config"] != rows[2]["config"]
    assert rows[0]["config"] == short_hash(record(0, 0.5)["config"])


def test_records_without_all_of_that(tmp_path):
    old = record(0, 0.5)
    del old["config"], old["versions"]
    SweepStore(tmp_path).finish("old", old)
    (row,) = read_rows(tmp_path)
    assert [row[name] for name in ("method", "initializer", "config", "jax")] == [None] * 4


def test_a_mixture_has_a_row_for_each_task_too(tmp_path):
    metrics = {"rte/accuracy": 0.5, "cb/accuracy": 0.8, "cb/f1": 0.6}
    summary = record(0, 0.6, task="both", metrics=metrics)
    SweepStore(tmp_path).finish("mixed", summary)
    found = {row["task"]: row["score"] for row in read_rows(tmp_path)}
    assert found == {"rte": 0.5, "cb": pytest.approx(0.7), "both": 0.6}


def test_the_score_on_the_reported_split_is_beside_the_one_that_selects(tmp_path):
    report = {"split": "test", "score": 0.4, "metrics": {"accuracy": 0.4}}
    SweepStore(tmp_path).finish("one", record(0, 0.5, report=report))
    (row,) = read_rows(tmp_path)
    assert (row["score"], row["accuracy"], row["test_score"]) == (0.5, 0.5, 0.4)


def test_a_mixture_reports_each_task(tmp_path):
    metrics = {"rte/accuracy": 0.5, "cb/accuracy": 0.8, "cb/f1": 0.6}
    report = {"split": "test", "score": 0.55, "metrics": {**metrics, "rte/accuracy": 0.4}}
    summary = record(0, 0.6, task="both", metrics=metrics, report=report)
    SweepStore(tmp_path).finish("mixed", summary)
    found = {row["task"]: row["test_score"] for row in read_rows(tmp_path)}
    assert found == {"rte": 0.4, "cb": pytest.approx(0.7), "both": 0.55}


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
