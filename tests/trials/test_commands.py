"""Trials of commands: the common start, the network, serving and what the docs show."""

import re
import time

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from prompt_tuning.errors import UserError


def test_the_common_start_trains_and_evaluates(finished_run, command):
    result = command("evaluate", finished_run)
    assert result.status == 0
    assert '"score"' in result.out
    assert re.search(r"class +precision +recall +F1 +support\n(no|yes) ", result.err)


def test_trial_25_without_a_network_it_fails_at_once(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("NO_PROXY", "")
    from prompt_tuning.data.quiet_tensorflow import tfds  # noqa: F401 - its import isn't timed

    began = time.monotonic()
    result = command("show", "superglue_rte", "--gin_file=models/tinyworld_small.gin")
    assert time.monotonic() - began < 30
    assert result.status == 2
    assert result.out == "" and "etry" not in result.err
    assert re.search(
        r"TFDS cannot prepare super_glue/rte in \S.*: \S+ can't be reached\. Give a folder of the "
        "official files, --gin.DATA_DIR=FOLDER",
        result.message,
    )


def test_trial_26_http_names_what_is_wrong(tmp_path):
    from prompt_tuning.serving.questions import Body, example_of, first_mistake

    def mistake(**body: object) -> str:
        with pytest.raises((ValidationError, UserError)) as raised:
            question = TypeAdapter(Body).validate_python({"prompt": "rte", **body})
            example_of(question, None, "")
        if isinstance(raised.value, UserError):
            return str(raised.value)
        return first_mistake(raised.value.errors())

    assert "Did you mean 'inputs'?" in mistake(input="a")
    assert mistake(inputs="a", labels="x") == "labels: must be a list of strings."
    assert mistake(inputs="a", labels=[]) == "labels: is an empty list."
    assert mistake(inputs="") == "inputs: is empty; give the text to answer."


def test_trial_26_serve_refuses_a_folder_without_prompts(command, tmp_path):
    serve = ("--port=0", "--gin_file=models/tinyworld_tiny.gin")
    result = command("serve", tmp_path, *serve)
    assert result.status == 2
    assert "contains no prompts" in result.message
    np.save(tmp_path / "wide.npy", np.zeros((3, 512), np.float32))
    result = command("serve", tmp_path, *serve)
    assert result.status == 2
    assert "None of the 1 prompts" in result.message and "512" in result.message


def test_trial_28_the_questions_of_the_serving_page_are_tinyworlds(checkout):
    """The slow test in tests/test_serving_page.py asks them; here each is made of known words."""
    from prompt_tuning.data.vocabularies import UNK_ID, Vocabulary

    assets = checkout / "prompt_tuning" / "assets" / "tinyworld"
    vocabulary = Vocabulary(assets / "tinyworld.model")
    page = (checkout / "docs" / "serving.md").read_text(encoding="utf-8")
    texts = re.findall(r'"(?:inputs|premise|hypothesis|sentence[12])": "([^"]+)"', page)
    texts += re.findall(r'^(?:fish|ring) = "([^"]+)"', page, re.MULTILINE)
    assert len(texts) > 8
    for text in texts:
        assert UNK_ID not in vocabulary.encode(text)
        assert len(vocabulary.encode(text)) < 2.5 * len(text.split()), text
