"""The script that scores a sweep's runs on other tasks: which, once each, and what it writes."""

import json

import pyarrow.parquet
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import provenance
from prompt_tuning.sweeps.store import SweepStore


@pytest.fixture
def run(load_experiment):
    return load_experiment("domain_shift", "run")


@pytest.fixture
def sweep(tmp_path):
    for method in ("weights", "soft_prompt"):
        (tmp_path / "parts" / method).mkdir(parents=True)
        SweepStore(tmp_path).finish(
            method,
            {
                "settings": {"SEED": 0},
                "config": {"train.method": f"@{method}"},
                "folder": f"parts/{method}",
                "versions": provenance({}, "2026-01-01"),
                "summary": {
                    "task": "squad",
                    "model": "small",
                    "score": 0.5,
                    "metrics": {"exact_match": 0.25, "f1": 0.75},
                },
            },
        )
    return tmp_path


def test_every_run_is_scored_once_on_each_task(run, sweep, monkeypatch):
    asked = []

    def evaluate(argv):
        asked.append(argv)
        found = {"a/exact_match": 0.125, "a/f1": 0.375, "b/exact_match": 1, "b/f1": 1.0}
        return json.dumps({"task": "mrqa", "split": "test", "prompt": "x", **found, "score": 0.6})

    monkeypatch.setattr(run, "output_of", evaluate)
    argv = [str(sweep), "--on", "squad=mrqa", "--gin.DATA_DIR=there"]
    run.main(argv)
    run.main(argv)
    assert asked == [
        ["evaluate", str(sweep / "parts" / m), "--gin.MIXTURE_OR_TASK_NAME='mrqa'", argv[-1]]
        for m in ("soft_prompt", "weights")
    ]
    rows = pyarrow.parquet.read_table(sweep / "transfer.parquet").to_pylist()
    assert [(row["method"], row["task"], row["f1"], row["score"]) for row in rows] == [
        (method, *scores)
        for method in ("prompt tuning", "model tuning")
        for scores in (("squad", 0.75, 0.5), ("a", 0.375, 0.25), ("b", 1.0, 1.0))
    ]
    assert {row["trained on"] for row in rows} == {"squad"}


@pytest.mark.parametrize(
    ("on", "told"),
    [("squad", "expected TRAINED=TASK"), ("glue_qqp=glue_mrpc", "--on says nothing of squad")],
)
def test_what_to_score_on_must_be_told(run, sweep, on, told):
    with pytest.raises(UserError, match=told):
        run.main([str(sweep), "--on", on])
