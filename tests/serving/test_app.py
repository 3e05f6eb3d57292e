"""The HTTP interface in process: answers, refusals, hot loading and metrics."""

import asyncio
import json
import re
import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from prompt_tuning import Example
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.serving.app import create_app
from prompt_tuning.serving.batching import BatchingOptions
from prompt_tuning.serving.limits import Limits

LIMITS = Limits(body_bytes=20_000, examples=8, labels=3, body_seconds=1.0)


@pytest.fixture
def client(predictor, folder):
    batching = BatchingOptions(max_size=4, max_wait=0.001, max_queue=12)
    app = create_app(predictor, folder, limits=LIMITS, batching=batching)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def question(prompt="rte", inputs="a b", **more):
    return {"prompt": prompt, "inputs": inputs, **more}


def refused(response, status):
    """Checks that a refusal is one line of JSON, and returns the line."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (text,) = response.json().values()
    assert list(response.json()) == ["error"]
    assert text and "\n" not in text and "Traceback" not in text
    return text


def test_one_example(client, predictor):
    response = client.post("/predict", json=question("wsc", "the bird"))
    (expected,) = predictor.predict([Example(prompt="wsc", inputs="the bird")])
    assert response.status_code == 200
    assert response.json() == {"prompt": "wsc", "prediction": expected.text, "truncated": False}


def test_the_task_makes_the_text_of_fields(client, predictor, folder):
    fields = {"premise": "a bird", "hypothesis": "the cat"}
    text = get_task("tinyworld_rte").inputs_of(fields)
    (expected,) = predictor.predict([Example(prompt="rte", inputs=text)])
    for body in ({"prompt": "rte", **fields}, question(inputs=text, premise="a bird")):
        assert client.post("/predict", json=body).json()["prediction"] == expected.text
    # One of a user's own is told by a copy of its run's task.json.
    task = {"name": "r", "labels": None, "input_template": "the {a}", "target_template": "{b}"}
    record = {"name": "r", "tasks": [task], "lengths": {}}
    (folder.folder / "wic.task.json").write_text(json.dumps(record))
    folder.load("wic")
    (expected,) = predictor.predict([Example(prompt="wic", inputs="the bird")])
    found = client.post("/predict", json={"prompt": "wic", "a": "bird"})
    assert found.json()["prediction"] == expected.text


def test_several_examples_of_several_prompts(client, predictor):
    questions = [question(name, f"a {name}") for name in ("rte", "wsc", "wic", "rte", "wsc")]
    response = client.post("/predict", json={"examples": questions})
    expected = predictor.predict([Example(**each) for each in questions])
    found = response.json()["predictions"]
    assert [each["prediction"] for each in found] == [answer.text for answer in expected]
    assert [each["prompt"] for each in found] == [each["prompt"] for each in questions]


def test_labels_are_ranked_and_long_inputs_said_to_be_cut(client):
    labels = ["entailment", "not_entailment"]
    response = client.post("/predict", json=question(inputs="a " * 50, labels=labels)).json()
    assert response["truncated"] is True
    assert list(response["scores"]) == labels
    assert response["prediction"] == max(labels, key=response["scores"].__getitem__)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (question("rt"), 404, "Unknown prompt 'rt'. Did you mean 'rte'?"),
        ({"examples": [question(), question("../rte")]}, 404, "Unknown prompt '../rte'."),
        ({"prompt": "rte"}, 422, "inputs: missing."),
        (question(inputs=3), 422, "inputs: must be a string"),
        (question(inputs=" "), 422, "inputs: is empty; give the text to answer"),
        (question(temperature=2), 422, "temperature: unknown field. Known fields: prompt, inputs"),
        ({"prompt": "rte", "input": "a"}, 422, "input: unknown field. Did you mean 'inputs'"),
        ({"exampels": [question()]}, 422, "exampels: unknown field. Did you mean 'examples'"),
        ({"examples": [{"prompt": "rte", "input": "a"}]}, 422, "examples[0].input: unknown field."),
        ({"promt": "rte", "inputs": "a"}, 422, "promt: unknown field. Did you mean 'prompt'"),
        ({"prompt": "rte", "premis": "a"}, 422, "premis: unknown field. Did you mean 'premise'"),
        ({"prompt": "rte", "premise": "a"}, 422, "body: no field 'hypothesis'; found 'premise'."),
        ({"prompt": "rte", "premise": 1, "hypothesis": "a"}, 422, "'premise' is 1, expected text"),
        ({"prompt": "rte", "premise": "", "hypothesis": " "}, 422, "body: the fields are empty"),
        (
            {"prompt": "rte", "premise": "\ud800", "hypothesis": "a"},
            422,
            "body: '\\ud800' is half a character",
        ),
        ({"examples": [{"prompt": "wsc", "text": "a"}]}, 422, "examples[0]: no field 'span2_text'"),
        ({"prompt": "wic", "word": "a"}, 422, "word: unknown field. Known fields: prompt, inputs"),
        ({"prompt": "rt", "premise": "a"}, 404, "Unknown prompt 'rt'. Did you mean 'rte'?"),
        (question(labels="x"), 422, "labels: must be a list of strings"),
        (question(labels=[]), 422, "labels: is an empty list"),
        (question("r" * 101), 422, "prompt: String should have at most 100"),
        (question(inputs="\ud800"), 422, "inputs: a lone surrogate"),
        (question("\ud800"), 422, "prompt: Input should be a valid string"),
        (question(labels=["\ud800"]), 422, "labels[0]: a lone surrogate"),
        ({"examples": [question(), {"inputs": "a"}]}, 422, "examples[1].prompt: missing"),
        ({"examples": []}, 422, "examples: is an empty list"),
        ({"examples": [question()] * 9}, 422, "The request has 9 examples; at most 8"),
        (question(labels=list("abcd")), 422, "An example has 4 labels; at most 3"),
        (question(labels=["a", "a"]), 422, "have a duplicate"),
        ([1, 2], 422, "body: "),
        ("rte", 422, "body: "),
        (None, 422, "body: "),
    ],
)
def test_what_is_wrong_is_told(client, body, status, message):
    assert message in refused(
        client.post("/predict", content=json.dumps(body), headers=JSON), status
    )


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{broken", 422), (b"", 422), (b"[" * 15_000, 400), (b"\xff\xfe{}", 422)],
)
def test_what_is_no_json_is_told(client, content, status):
    text = refused(client.post("/predict", content=content, headers=JSON), status)
    assert "body" in text


def test_the_first_page_names_the_requests(client):
    page = client.get("/").json()
    assert page["prompts"] == ["rte", "wic", "wsc"]
    assert set(page["requests"]) == {
        "POST /predict",
        "GET /prompts",
        "POST /prompts",
        "POST /prompts/{name}",
        "GET /health",
        "GET /metrics",
    }
    assert page["requests"]["GET /prompts"] == "Lists the prompts that examples can name."
    assert "/predict" in client.get(page["schema"]).json()["paths"]


def test_json_has_to_be_declared(client):
    response = client.post("/predict", content=json.dumps(question()))
    assert "body: " in refused(response, 422)


def test_unknown_paths_and_methods(client):
    assert "Not Found (GET /predictions)" in refused(client.get("/predictions"), 404)
    assert "Method Not Allowed (GET /predict)" in refused(client.get("/predict"), 405)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large(client, declared):
    content = json.dumps(question(inputs="a " * 20_000)).encode()
    pieces = (
        content if declared else iter([content[:9_000], content[9_000:18_000], content[18_000:]])
    )
    response = client.post("/predict", content=pieces, headers=JSON)
    assert "larger than 20000 bytes" in refused(response, 413)


def test_a_body_that_does_not_come(predictor, folder):
    """Asked of the application itself: no client holds back."""
    app = create_app(predictor, folder, limits=LIMITS)
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "headers": [],
        "query_string": b"",
    }
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"]) == {"error": "The body took longer than 1 seconds."}


def test_a_full_queue(client, predictor, monkeypatch):
    free = threading.Event()
    answer = predictor._answer
    monkeypatch.setattr(predictor, "_answer", lambda *args: free.wait(20) and answer(*args))
    statuses = []
    body = {"examples": [question()] * 4}
    threads = [
        threading.Thread(
            target=lambda: statuses.append(client.post("/predict", json=body).status_code)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for _ in range(500):
        time.sleep(0.01)
        if "prompt_tuning_queued_examples 12.0" in client.get("/metrics").text:
            break
    response = client.post("/predict", json=question())
    assert "try again" in refused(response, 429)
    assert response.headers["retry-after"] == "1"
    assert client.get("/health").status_code == 200, "it still answers"
    free.set()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 4


def test_a_bug_is_not_shown_to_the_client(client, predictor, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "_answer", lambda *args: 1 / 0)
        assert "Something went wrong" in refused(client.post("/predict", json=question()), 500)
    assert client.post("/predict", json=question()).status_code == 200


def test_prompts_are_listed(client):
    assert client.get("/prompts").json()["prompts"] == [
        {"name": "rte", "length": 3, "task": "tinyworld_rte", "step": 7, "score": 0.5},
        {"name": "wic", "length": 1, "task": None, "step": None, "score": None},
        {"name": "wsc", "length": 8, "task": "tinyworld_wsc", "step": 7, "score": 0.5},
    ]


def test_a_new_prompt_file_is_loaded_while_the_server_runs(client, folder):
    refused(client.post("/predict", json=question("new")), 404)
    refused(client.post("/prompts/new"), 404)
    np.save(folder.folder / "new.npy", np.ones((2, 16), np.float32))
    assert client.post("/prompts/new").json()["length"] == 2
    assert client.post("/predict", json=question("new")).status_code == 200

    np.save(folder.folder / "newer.npy", np.ones((2, 16), np.float32))
    np.save(folder.folder / "wide.npy", np.ones((2, 17), np.float32))
    (folder.folder / "new.npy").unlink()
    changes = client.post("/prompts").json()
    assert changes["loaded"] == ["newer"] and changes["removed"] == ["new"]
    assert "17 wide" in changes["refused"]["wide"]
    assert client.post("/predict", json=question("newer")).status_code == 200
    refused(client.post("/predict", json=question("new")), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/prompts/..%2Fsecret",
        "/prompts/%2e%2e%2fsecret",
        "/prompts/..%252Fsecret",
        "/prompts/%2Fetc%2Fpasswd",
        "/prompts//etc/passwd",
        "/prompts/..%5Csecret",
        "/prompts/secret%00",
        "/prompts/link",
    ],
)
def test_no_name_leads_out_of_the_folder(client, folder, predictor, path):
    secret = folder.folder.parent / "secret.npy"
    np.save(secret, np.ones((2, 16), np.float32))
    (folder.folder / "link.npy").symlink_to(secret)
    text = refused(client.post(path), 422)
    assert (
        "can't be the name of a prompt" in text
        or "links to a file outside the prompt folder" in text
    )
    assert set(predictor.prompts) == {"rte", "wic", "wsc"}


def test_health(client, predictor):
    assert client.get("/health").json() == {"status": "ok", "model": "tiny_random", "prompts": 3}


def test_metrics_count_what_was_done(client):
    client.post("/predict", json={"examples": [question("rte"), question("wsc")]})
    client.post("/predict", json=question("none"))
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    counted = dict(re.findall(r"^prompt_tuning_(\S+) (\S+)$", response.text, re.MULTILINE))
    assert counted['requests_total{route="/predict",status="200"}'] == "1.0"
    assert counted['requests_total{route="/predict",status="404"}'] == "1.0"
    assert counted['requests_total{route="none",status="404"}'] == "2.0"
    assert counted['examples_total{prompt="rte"}'] == "1.0"
    assert counted["batch_examples_sum"] == "2.0"
    assert counted["prompts"] == "3.0"
    assert float(counted["compiled_shapes"]) >= 1


def test_many_clients_at_once_are_answered_as_each_alone(client, predictor):
    """Scores tell answers apart where labels would not."""
    labels = ["entailment", "not_entailment"]
    questions = [
        question(name, "a bird sees the dog".split()[i], labels=labels)
        for i in range(4)
        for name in ("rte", "wsc", "wic")
    ]
    answers = {}

    def ask(i):
        answers[i] = client.post("/predict", json=questions[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, each in enumerate(questions):
        alone = predictor.predict([Example(**{**each, "labels": tuple(labels)})])[0]
        assert answers[i].json()["scores"] == pytest.approx(alone.scores, rel=1e-5)
    fingerprints = {tuple(answers[i].json()["scores"].values()) for i in range(12)}
    assert len(fingerprints) == 12
    batches = client.get("/metrics").text
    (count,) = re.findall(r"^prompt_tuning_batch_examples_count (\S+)$", batches, re.MULTILINE)
    assert float(count) < 12, "else none shared a batch"


@pytest.mark.parametrize(
    "body", [r'{"prompt": "rte", "inputs": "a", "\ud800": 1}', r'{"\ud800": [], "examples": []}']
)
def test_half_a_character_in_a_name_is_refused_too(client, body):
    refused(client.post("/predict", content=body, headers=JSON), 422)
