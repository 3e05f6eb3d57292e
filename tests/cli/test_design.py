"""`prompt-tuning design` and `search` on a tiny random model, and what can be wrong."""

import json

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = ["--gin_file=models/t5_1_1_small.gin", "--gin_file=tasks/superglue_rte.gin"]
# One padded length: each is compiled.
FILES += ["--gin.data.num_lengths=1"]


@pytest.fixture
def fails(tiny_settings, capsys):
    """Runs a command that must fail, and returns the line that it prints."""

    def run(*argv, command="design"):
        capsys.readouterr()
        assert status_of(main, [command, *FILES, *tiny_settings, *argv]) == USER_ERROR
        printed = capsys.readouterr()
        assert printed.out == "" and "Traceback" not in printed.err
        return printed.err.strip().splitlines()[-1]

    return run


def test_designs_are_scored_without_a_prompt(tiny_settings, capsys):
    designs = ["--design", "follows", "question", "--shots", "0", "4", "--seed=2"]
    main(["design", *FILES, *tiny_settings, *designs])
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    assert (found["task"], found["split"], found["seed"]) == ("superglue_rte", "validation", 2)
    rows = [(row["design"], row["shots"]) for row in found["results"]]
    assert rows == [("follows", 0), ("follows", 4), ("question", 0), ("question", 4)]
    assert all(0 <= row["score"] <= 1 for row in found["results"])
    # Rows are about a hundred pieces long and inputs forty: no room for any.
    assert found["results"][1]["fitted_shots"] == 0
    assert (
        "follows, 4 shots: 6 of 6 questions have room for fewer shots in 40 tokens" in printed.err
    )
    header, *table = printed.out.splitlines()[:5]
    assert header.split() == ["design", "shots", "fitted", "accuracy", "score"]
    assert table[3].split()[:3] == ["question", "4", "0.0"]


def test_search_picks_the_best_and_scores_it_elsewhere(tiny_settings, capsys):
    main(["search", *FILES, *tiny_settings, "--score_on=test"])
    *table, _, line = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    scores = {row.split()[0]: float(row.split()[-1]) for row in table[1:]}
    assert found["candidates"] == len(scores) == 3
    best = found["best"]
    assert best["design"] == max(scores, key=scores.__getitem__)
    assert f"{best['score']:.3f}" == f"{scores[best['design']]:.3f}"
    # In these data the test split is the same as the validation split.
    assert found["test"] == best


@pytest.mark.parametrize(
    "flags",
    [
        ["--gin_file=tasks/superglue_wsc.gin", "--design=who"],
        pytest.param(["--generate", "--design=follows"], marks=pytest.mark.slow),
    ],
)
def test_answers_are_generated_where_there_are_no_labels_and_on_demand(
    tiny_settings, capsys, flags
):
    main(["design", *FILES, *tiny_settings, *flags])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert row["accuracy"] == row["score"]


def test_own_designs(tiny_settings, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text('[superglue_rte.short]\ninput = "{hypothesis}?"\n')
    main(["design", *FILES, *tiny_settings, f"--templates={path}"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert row["design"] == "short"


def test_mistakes_are_told(fails, tmp_path):
    assert "Unknown design 'folows'" in (line := fails("--design=folows")) and "'follows'" in line
    assert "can't be scored on the training split" in fails("--split=train")
    assert "shots is -1" in fails("--shots=-1")
    assert "invalid int value: 'four'" in fails("--shots=four")
    assert "7 solved examples" in fails("--shots=7")
    assert "none.toml is missing" in fails("--templates=none.toml")
    assert "is a mixture of 8 tasks" in fails("--gin_file=tasks/superglue.gin")
    line = fails("--gin_file=tasks/glue_sst2.gin")
    assert "no designs for glue_sst2; give --templates FILE" in line
    line = fails("--score_on=validation", command="search")
    assert "the split on which the prompt is selected" in line
    path = tmp_path / "mine.toml"
    path.write_text('[superglue_rt.a]\ninput = "{premise}"\n')
    line = fails(f"--templates={path}")
    assert "has no designs for superglue_rte" in line and "'superglue_rt'" in line


def test_withheld_labels_are_told(fails, tmp_path):
    row = {"premise": "a", "hypothesis": "b", "idx": 0}
    (tmp_path / "RTE").mkdir()
    for name, label in (("train", "entailment"), ("val", "entailment"), ("test", None)):
        labelled = {**row, "label": label} if label else row
        (tmp_path / "RTE" / f"{name}.jsonl").write_text(json.dumps(labelled))
    line = fails(f"--gin.DATA_DIR={tmp_path}", "--split=test", "--design=t5")
    assert "withheld" in line and "validation" in line
