"""`prompt-tuning ensemble` over prompt files and run folders, and what can be wrong with them."""

import json

import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = ["--gin_file=models/t5_1_1_small.gin", "--gin_file=tasks/superglue_cb.gin"]
# One padded length: each is compiled.
FILES += ["--gin.data.num_lengths=1"]
RANK = "--gin.predict.method=rank"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """Three prompts of different lengths; one tells of another task."""
    folder = tmp_path_factory.mktemp("prompts")
    rng = np.random.default_rng(3)
    for name, length, task in (("a", 3, "superglue_cb"), ("b", 2, None), ("c", 3, "superglue_rte")):
        metadata = PromptMetadata(model="tiny_random", task=task)
        save_prompt(folder / name, rng.normal(size=(length, 16)), metadata)
    return [str(folder / f"{name}.safetensors") for name in "abc"]


def test_members_and_votes(prompts, tiny_settings, tmp_path, capsys):
    predictions = tmp_path / "predictions.jsonl"
    flags = [*FILES, *tiny_settings, RANK]
    main(["ensemble", *prompts, *flags, f"--predictions={predictions}", "--split=test"])
    printed = capsys.readouterr()
    assert "c.safetensors was trained on superglue_rte" in printed.err
    assert "a.safetensors was trained" not in printed.err
    *table, line = printed.out.strip().splitlines()
    found = json.loads(line)
    assert found["split"] == "test" and list(found["prompts"]) == prompts
    scores = [member["score"] for member in found["prompts"].values()]
    assert found["average"] == pytest.approx(np.mean(scores))
    assert found["best"] == max(scores)
    assert table[0].split() == ["accuracy", "macro_f1", "score"]
    rows = {row.rsplit(maxsplit=3)[0]: row.split()[-1] for row in table[1:] if row}
    assert list(rows)[3:] == [
        *("average", "best", "majority vote", "mean probability", "weighted vote")
    ]
    for name in ("majority vote", "mean probability", "weighted vote"):
        assert rows[name] == f"{found[name.replace(' ', '_')]['score']:.3f}"
    answers = [json.loads(row) for row in predictions.open()]
    right = np.mean([row["prediction"] == row["targets"] for row in answers])
    assert right == found["majority_vote"]["accuracy"]

    # In these data the development split is the same: the weights are the scores.
    assert [*found["weights"].values()] == scores


def test_methods_that_fill_different_slots(prompts, tiny_settings, tmp_path, capsys):
    flags = [*FILES, *tiny_settings]
    lora = ["--gin_file=runs/train.gin", "--gin_file=methods/lora.gin"]
    main(["train", *flags[:2], *lora, *flags[2:], f"--gin.MODEL_DIR={tmp_path / 'run'}"])
    capsys.readouterr()
    run = str(tmp_path / "run")
    assert status_of(main, ["ensemble", prompts[0], run, *flags, RANK]) == USER_ERROR
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "These prompts can't vote in one program" in told
    assert "Give prompts of one method." in told


@pytest.mark.slow
def test_answers_that_are_generated(prompts, tiny_settings, capsys):
    main(["ensemble", *prompts[:2], *FILES, "--gin_file=tasks/superglue_wsc.gin", *tiny_settings])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["task"] == "superglue_wsc" and found["split"] == "validation"
    # On the development split itself the scores are the weights.
    assert list(found["weights"].values()) == [m["score"] for m in found["prompts"].values()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}"], "needs at least two prompts; found only"),
        (["{0}", "{1}", "{0}"], "is given twice"),
        (["{0}", "none.npy"], "There is no prompt file or run folder none.npy"),
        (["{0}", "{1}", "--split=train2"], "no split 'train2'"),
    ],
)
def test_mistakes_are_told(prompts, tiny_settings, capsys, arguments, message):
    argv = [argument.format(*prompts) for argument in arguments]
    assert status_of(main, ["ensemble", *argv, *FILES, *tiny_settings]) == USER_ERROR
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("prompt-tuning: ") and message in last and "Traceback" not in error
