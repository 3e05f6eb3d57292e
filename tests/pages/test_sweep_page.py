"""A sweep's page: which columns and axes are picked, what it shows, and what can't be told."""

import re

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.pages.sweep_layout import described_rows, macro_rows, table_layout
from prompt_tuning.pages.sweep_page import Sweep, sweep_page
from prompt_tuning.sweeps.results import read_records
from prompt_tuning.sweeps.store import SweepStore


def record(settings, *, task="rte", model="small", score=0.5, **more):
    sizes = {"tiny": 10, "small": 100, "large": 1000}
    summary = {
        "task": task,
        "model": model,
        "score": score,
        "metrics": {"accuracy": score},
        "best_step": 2,
        "steps": 4,
        "frozen_parameters": sizes[model],
        "wall_seconds": 61.0,
    }
    return {
        "settings": settings,
        "config": {"SEED": str(settings.get("SEED")), "TASK": task, "MODEL": model, "ALL": "1"},
        "folder": "parts/a",
        "versions": {"git_commit": "abc"},
        "summary": {**summary, **more},
    }


def lengths():
    """Two models, two tasks, lengths 5 and 20, seeds 0 and 1; the score grows with the length."""
    return {
        f"{model}-{task}-{length}-{seed}": record(
            {
                "gin_file": [f"models/{model}.gin", f"tasks/{task}.gin"],
                "PROMPT_LENGTH": length,
                "SEED": seed,
            },
            task=task,
            model=model,
            score=length / 40 + 0.1 * seed,
        )
        for model in ("small", "large")
        for task in ("rte", "wic")
        for length in (20, 5)
        for seed in (0, 1)
    }


def layout(records):
    return table_layout(described_rows(records))


def test_numbers_go_across_and_files_that_a_column_tells_are_left_out():
    found = layout(lengths())
    assert found.across == found.along == "PROMPT_LENGTH"
    assert found.down == ["model", "task"] and found.lines == ["model"] and found.seed == "SEED"


def test_files_of_a_folder_make_a_column():
    records = {
        f"{kind}{seed}": record({"gin_file": [f"prompts/{kind}.gin", "x.gin"], "SEED": seed})
        for kind in ("random", "labels")
        for seed in (0, 1)
    }
    found = layout(records)
    assert (found.across, found.down, found.along) == ("prompts/", ["task"], "prompts/")
    assert described_rows(records)[0]["prompts/"] == "random"


def test_models_alone_come_by_their_size():
    records = {
        model: record({"gin_file": f"models/{model}.gin", "SEED": 0}, model=model)
        for model in ("large", "small", "tiny")
    }
    assert layout(records).across == "model"
    page = sweep_page(Sweep(folder="s", records=records, failures={}, metrics={}, packages=[]))
    heads = re.findall(r'<th scope="col" class="n">(\w+)</th>', page)
    assert heads == ["tiny", "small", "large"]


@pytest.mark.parametrize(
    ("settings", "along"), [([{"SEED": 0}, {"SEED": 1}], "SEED"), ([{}, {}], "task")]
)
def test_runs_that_only_repeat_or_differ_in_their_task(settings, along):
    records = {
        f"run{i}": record(each, task=f"task{i if along == 'task' else 0}")
        for i, each in enumerate(settings)
    }
    assert layout(records).along == along
    page = sweep_page(Sweep(folder="s", records=records, failures={}, metrics={}, packages=[]))
    assert page.count('class="dot"') == 2


def page_of(records, **more):
    parts = {"failures": {}, "metrics": {}, "packages": [], **more}
    return sweep_page(Sweep(folder="runs/lengths", records=records, **parts))


def test_the_page_tells_means_runs_and_configurations():
    rows = [{"step": 0, "eval/score": 0.1}, {"step": 2, "eval/score": 0.5}]
    page = page_of(
        lengths(),
        failures={"bad-run": {"times": 3, "why": "no <memory>"}},
        metrics={"small-rte-5-0": rows},
        packages=[{"jax": "1.2.3"}],
    )
    assert "<h1>lengths</h1>" in page
    assert "The mean score over 2 tasks" in page
    assert page.count('0.550<span class="deviation"> ± 0.071 (2)</span>') == 2 + 4
    assert page.count('class="dot"') == 3 * 2 * 2, "charts, models, lengths"
    assert ">16</strong>" in page and "1 failed" in page
    assert page.count('<span class="run">') == 16
    assert page.count("from 0.100 to 0.500") == 1
    assert "no &lt;memory&gt;" in page and "bad-run" in page
    assert "1.2.3" in page and "abc" in page
    assert page.count("<small> 4 runs</small>") == 4, "seeds and lengths that config doesn't tell"
    assert "In common: 1 settings" in page


def test_lines_come_in_order_of_numbers_not_texts():
    page = page_of(lengths())
    heads = re.findall(r'<th scope="col" class="n">(\d+)</th>', page)
    assert heads == ["5", "20", "5", "20"]


def test_a_mean_over_tasks_waits_for_all_of_them():
    records = lengths()
    del records["large-wic-5-1"]
    rows = described_rows(records)
    assert macro_rows(rows, table_layout(rows))[0] == []
    assert "no mean over tasks yet" in page_of(records)


def test_scores_that_are_no_number_are_left_out():
    records = {f"r{i}": record({"SEED": i}, score=s) for i, s in enumerate((float("nan"), 0.5))}
    assert "0.500" in page_of(records)
    nothing = {"r": record({"SEED": 0}, score=float("nan"))}
    assert "No score is a number" in page_of(nothing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "it has no 'summary'"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, text, message):
    SweepStore(tmp_path).finish("good", record({"SEED": 0}))
    (tmp_path / "runs" / "bad.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_records(tmp_path)
    assert "bad.json" in str(caught.value) and "\n" not in str(caught.value)
