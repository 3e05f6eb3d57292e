"""`prompt-tuning publish` and `pt.publish`, against a stand-in for the hub on loopback."""

import json

import numpy as np
import pytest
import yaml
from hub_server import Hub

import prompt_tuning as pt
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.errors import UserError

PROMPT = np.random.default_rng(5).normal(size=(3, 16)).astype(np.float32)
METADATA = PromptMetadata(model="tiny_random", task="superglue_rte", step=20, seed=7)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    constants = pytest.importorskip("huggingface_hub.constants")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        template.replace("https://huggingface.co", server.address),
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path):
    """What `publish` reads of a run folder."""
    folder = tmp_path / "runs" / "rte"
    folder.mkdir(parents=True)
    save_prompt(folder / "prompt_best", PROMPT, METADATA)
    rows = [{"step": 0, "eval/score": 0.5}, {"step": 10, "loss": 0.7}]
    rows += [{"step": 20, "eval/score": 0.75}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "metrics": {"accuracy": 0.75},
        "trained_parameters": 48,
        "report": {"split": "test", "metrics": {"accuracy": 0.7}},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_prompt_goes_to_the_hub_and_comes_back(hub, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no folder of the repository's name
    argv = ["publish", str(run), "someone/rte", "--base_model", "google/t5-base-lm-adapt"]
    assert main([*argv, "--license", "apache-2.0"]) == 0
    assert f"{hub.address}/someone/rte" in capsys.readouterr().out

    files = hub.repositories["someone/rte"]
    assert files["prompt_best.npy"] == (run / "prompt_best.npy").read_bytes()
    assert files["learning_curve.png"].startswith(b"\x89PNG")
    prompt, metadata = pt.load_prompt("someone/rte")
    np.testing.assert_array_equal(prompt, PROMPT)
    assert metadata == METADATA
    assert json.loads(files["peft/adapter_config.json"])["peft_type"] == "PROMPT_TUNING"

    _, header, card = files["README.md"].decode().split("---\n")
    assert yaml.safe_load(header) == {
        "base_model": "google/t5-base-lm-adapt",
        "library_name": "prompt-tuning",
        "license": "apache-2.0",
        "tags": ["prompt-tuning", "soft_prompt"],
    }
    for fact in ("Development accuracy: 0.7500", "Test accuracy: 0.7000", "Seed: 7", "someone/rte"):
        assert fact in card
    program = card.split("```python\n")[1].split("```")[0]
    compile(program, "card", "exec")


def test_a_folder_alone_is_not_uploaded(hub, run, tmp_path):
    assert pt.publish(run, folder=tmp_path / "shared") == str(tmp_path / "shared")
    assert not hub.tokens
    np.testing.assert_array_equal(load_prompt(tmp_path / "shared")[0], PROMPT)
    np.testing.assert_array_equal(load_prompt(tmp_path / "shared" / "peft")[0], PROMPT)


def test_what_the_hub_refuses_is_one_line(hub, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match="doesn't take someone/rte.*hf auth login") as error:
        pt.publish(run, "someone/rte")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a repository, OWNER/NAME, or a folder"),
        (["rte"], "'rte' is no hub name; expected OWNER/NAME"),
    ],
)
def test_no_place(run, arguments, message):
    with pytest.raises(UserError, match=message):
        main(["publish", str(run), *arguments])


def test_a_prompt_that_the_hub_does_not_have(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hub can't provide a prompt of that name"):
        load_prompt("someone/nothing")
    # In a folder that is here, it is a mistake in a path.
    (tmp_path / "someone").mkdir()
    with pytest.raises(UserError, match="There is no prompt file or run folder"):
        load_prompt("someone/nothing")
