"""The command itself, as a process: where it listens, what it says, and how it stops."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.scripts import USER_ERROR, status_of
from prompt_tuning.serving import server

MODEL = "--gin_file=models/tinyworld_small.gin"


def test_an_address_that_is_taken():
    with server.listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert server.is_loopback(bound)
        assert server.url_of(bound) == f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: Address already in use.*--port"):
            server.listen("127.0.0.1", port)


def test_addresses_that_are_none():
    with pytest.raises(UserError, match="Can't listen at no.such.host.invalid:80"):
        server.listen("no.such.host.invalid", 80)
    with pytest.raises(UserError, match="--port is 99999"):
        server.listen("127.0.0.1", 99999)


def test_other_machines_reach_it_only_if_it_is_told_so():
    with server.listen("0.0.0.0", 0) as bound:
        assert not server.is_loopback(bound)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none"], "No configuration: give --gin_file="),
        (["none", MODEL, "--port=0"], "Folder none doesn't exist"),
        (
            ["none", MODEL, "--port=0", "--max_queue=5"],
            "--max_examples is 256, but the queue has room for 5",
        ),
        (["none", MODEL, "--port=0", "--max_body=0"], "--max_body is 0"),
        (["none", MODEL, "--port=0", "--max_wait=-1"], "--max_wait is -1.0"),
        ([MODEL], "The following arguments are required: FOLDER"),
    ],
)
def test_what_is_wrong_on_the_command_line(argv, message, capsys):
    assert status_of(main, ["serve", *argv]) == USER_ERROR
    assert message in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("prompt_tuning.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert status_of(main, ["serve", "prompts", MODEL]) == USER_ERROR
    assert "needs uvicorn, which isn't installed: pip install" in capsys.readouterr().err


def ask(url, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url + path, data, {"content-type": "application/json"} if data else {}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_serving_until_a_signal(number, tiny_settings, tiny_prompt_file, tmp_path):
    """It listens on loopback alone, answers what it was asked before the signal, and ends well."""
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "tiny.safetensors").write_bytes(tiny_prompt_file.read_bytes())
    (prompts / "broken.npy").write_bytes(b"no array")
    command = [sys.executable, "-m", "prompt_tuning.cli", "serve", str(prompts), "--port=0"]
    # A long wait, so that the signal comes while a request is being answered.
    command += ["--max_wait=1500", "--gin_file=models/t5_1_1_small.gin", *tiny_settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        refused, _compiling, ready = next(lines), next(lines), next(lines)
        assert refused.startswith("The prompt 'broken' is skipped: ")
        (url,) = re.findall(r"Serving tiny_random at (http://127.0.0.1:\d+); prompts: tiny$", ready)
        assert ask(url, "/health")["status"] == "ok"

        with ThreadPoolExecutor() as client:
            answer = client.submit(ask, url, "/predict", {"prompt": "tiny", "inputs": "a"})
            time.sleep(0.7)
            assert not answer.done()
            process.send_signal(number)
            assert answer.result()["prompt"] == "tiny"
        assert process.wait(60) == 0
        assert list(lines) == ["Stopped.\n"]
    with pytest.raises(urllib.error.URLError):
        ask(url, "/health")


def test_the_port_is_closed_if_the_model_cannot_be_loaded(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["serve", str(tmp_path), f"--port={port}", MODEL, "--gin.INITIAL_CHECKPOINT_PATH=none"]
    assert status_of(main, argv) == USER_ERROR
    server.listen("127.0.0.1", port).close()
