"""docs/adding_a_method.md: the example trains, is folded, saved and scored again."""

import json
import shlex

import numpy as np

from prompt_tuning.cli.__main__ import main
from prompt_tuning.methods.factories import CHOICES, METHODS


def test_the_page_s_method(checkout, tmp_path, monkeypatch, capsys):
    page = (checkout / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) < 60
    python, config, command = page.split("```")[1::2]
    (tmp_path / "my_method.py").write_text(python.removeprefix("python\n"))
    (tmp_path / "my_method.gin").write_text(config)
    monkeypatch.chdir(tmp_path)
    smaller = ["--gin_file=models/tinyworld_tiny.gin", "--gin.TRAIN_STEPS=2"]
    smaller += ["--gin.BATCH_SIZE=8", "--gin.train.tensorboard=False"]
    try:
        main([*shlex.split(command.replace("\\\n", " "))[1:], *smaller])
    finally:
        METHODS.pop("repeated_prompt", None)
        CHOICES.pop("repeated_prompt", None)
    summary = json.loads((tmp_path / "runs" / "mine" / "summary.json").read_text())
    prompt = np.load(tmp_path / "runs" / "mine" / "prompt_best.npy")
    assert summary["trained_parameters"] == prompt.shape[1]
    assert prompt.shape[0] == 10 and (prompt == prompt[0]).all()
    capsys.readouterr()
    main(["evaluate", "runs/mine"])
    assert json.loads(capsys.readouterr().out)["score"] == summary["score"]
