"""`prompt-tuning neighbors --report` and `compare`: their files, and what can be wrong."""

import csv

import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = [
    *("--gin_file=models/t5_1_1_small.gin", "--gin_file=tasks/superglue_rte.gin"),
    "--gin_file=runs/base.gin",
    "--gin.data.num_lengths=1",  # each is compiled
]


def table(path):
    header, *rows = csv.reader(path.open(encoding="utf-8"))
    return header, rows


def fails(capsys, *argv):
    capsys.readouterr()
    assert status_of(main, argv) == USER_ERROR
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    (line,) = printed.err.strip().splitlines()
    return line


def test_report_of_a_prompt(tiny_settings, tmp_path, capsys):
    folder = tmp_path / "report"
    flags = ["--report", str(folder), "--attention", "--removals", "--gin.predict.method=rank"]
    main(["neighbors", *FILES, *tiny_settings, "-k2", "--words", *flags])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(folder / "report.md")
    tables = {path.stem for path in folder.glob("*.csv")}
    assert tables == {
        *("neighbors", "labels", "repeats", "norms"),
        *("attention", "attention_by_position", "removals"),
    }
    report = (folder / "report.md").read_text()
    for picture in ("norms", "attention", "removals"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({picture}.png)" in report
    _, neighbors = table(folder / "neighbors.csv")
    assert [row[1] for row in neighbors] == [" ".join(line.split()[1::2]) for line in printed[:3]]
    assert "▁" not in report
    _, labels = table(folder / "labels.csv")
    assert [row[:2] for row in labels] == [["entailment", "0"], ["not_entailment", "1"]]
    header, attention = table(folder / "attention.csv")
    assert header[0] == "layer" and len(attention) == 1
    assert all(0 < float(share) < 1 for share in attention[0][1:])
    _, by_position = table(folder / "attention_by_position.csv")
    assert sum(float(row[1]) for row in by_position) == pytest.approx(float(attention[0][1]))
    _, removals = table(folder / "removals.csv")
    assert sorted(row[2] for row in removals) == ["1", "2", "3"]


def test_parts_of_a_report_need_one(tiny_settings, capsys):
    line = fails(capsys, "neighbors", *FILES, *tiny_settings, "--removals")
    assert "--removals requires --report FOLDER" in line


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Two seeds of a task, whose prompts are alike, and a file that tells nothing."""
    folder = tmp_path_factory.mktemp("prompts")
    rng = np.random.default_rng(0)
    base = rng.normal(size=(4, 8))
    for seed in (0, 1):
        metadata = PromptMetadata(model="m", task="rte", seed=seed)
        save_prompt(folder / f"rte{seed}", base + 0.1 * rng.normal(size=(4, 8)), metadata)
    np.save(folder / "released.npy", rng.normal(size=(2, 8)).astype(np.float32))
    names = ("rte0.safetensors", "released.npy", "rte1.safetensors")
    return [str(folder / name) for name in names]


def test_compare(prompts, tmp_path, capsys):
    folder = tmp_path / "report"
    main(["compare", *prompts, "--report", str(folder)])
    printed = capsys.readouterr().out
    header, rows = table(folder / "similarity.csv")
    assert header == ["", "rte, seed 0", "rte, seed 1", "released"]
    matrix = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(np.diag(matrix), 1)
    assert matrix[0, 1] > 0.9 > matrix[0, 2]
    _, groups = table(folder / "groups.csv")
    assert float(groups[0][1]) == pytest.approx(matrix[0, 1])
    assert f"{matrix[0, 1]:.3f}" in printed
    for picture in ("similarity", "projection"):
        assert (folder / f"{picture}.png").is_file()


def test_compare_tells_mistakes(prompts, tmp_path, capsys):
    assert "Nothing to compare" in fails(capsys, "compare", prompts[0])
    assert "Did you mean 'positions'" in fails(capsys, "compare", *prompts, "--measure=position")
    other = save_prompt(tmp_path / "other", np.ones((1, 8)), PromptMetadata(model="n"))[1]
    line = fails(capsys, "compare", prompts[0], str(other))
    assert "different models" in line and "'m'" in line and "'n'" in line
    wide = save_prompt(tmp_path / "wide", np.ones((1, 9)), PromptMetadata())[0]
    assert "8 and 9 wide" in fails(capsys, "compare", prompts[1], str(wide))
    (tmp_path / "file").write_text("in the way")
    to = str(tmp_path / "file" / "report")
    assert status_of(main, ["compare", *prompts, "--report", to]) == USER_ERROR
    assert "Can't write" in capsys.readouterr().err
