"""Measures the requests per second of `prompt-tuning serve`, and checks every answer.

    python benchmarks/serving.py [--quick] [--requests N] [--clients N] [--output FILE]

Trains two prompts of different lengths for TinyWorld Small, serves them on loopback, and sends
requests

- one at a time: one client waits for each answer before it asks again. The server doesn't
  wait for more requests (`--max_wait=0`), which is best for such a client;
- many at once: `--clients` clients, each with its own connection, on a server with the default
  settings, which batches their requests.

The requests are validation examples of both tasks in turn, without repeats. Every answer is
compared with that of a `Predictor` for the example alone, and the texts are scored. Different
examples may have equal texts, so the many clients also ask once, untimed, for the log-likelihoods
of two labels, which distinguish examples. The timed pass is the first one without new batch
shapes, since compiling a new shape takes seconds. The numbers are also written to
benchmarks/results/serving.json.

Client and server share the machine's cores.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jax

from prompt_tuning import Example, Predictor
from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.task import Example as TaskExample
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.models.decoding import DecodingOptions

RESULTS = Path(__file__).parent / "results" / "serving.json"
MODEL = "tinyworld_small"
MODEL_FILE = f"--gin_file=models/{MODEL}.gin"
VOCABULARY = Path(__file__).parents[1] / "prompt_tuning/assets/tinyworld/tinyworld.model"
PROMPTS = {"rte": 20, "wsc": 5}
LENGTHS = {"inputs": 64, "targets": 4}
TIMEOUT = 120
"""Seconds that a request, or the server's start, may take."""

MOST_PASSES = 10
"""How often the questions may be asked until nothing is compiled any more."""

Question = dict[str, Any]
Answer = dict[str, Any]


def train_prompts(folder: Path, steps: int) -> None:
    """Trains a prompt for each task and puts it into `folder` under the task's name."""
    for name, length in PROMPTS.items():
        run = folder.parent / f"run_{name}"
        command = [sys.executable, "-m", "prompt_tuning.cli", "train", MODEL_FILE]
        command += [f"--gin_file=tasks/tinyworld_{name}.gin", "--gin_file=runs/train.gin"]
        command += ["--gin_file=prompts/sampled_vocabulary.gin"]
        command += [f"--gin.MODEL_DIR={run}", f"--gin.PROMPT_LENGTH={length}"]
        command += [f"--gin.TRAIN_STEPS={steps}", f"--gin.train.eval_every={max(1, steps // 5)}"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        best = run / "prompt_best.safetensors"
        (folder / f"{name}.safetensors").write_bytes(best.read_bytes())


def validation_examples(number: int) -> list[tuple[str, TaskExample]]:
    """Returns examples of the tasks in turn, each with the name of its prompt."""
    tasks = {name: list(get_task(f"tinyworld_{name}").examples("validation")) for name in PROMPTS}
    names = [list(PROMPTS)[i % len(PROMPTS)] for i in range(number)]
    return [(name, tasks[name][i // len(PROMPTS)]) for i, name in enumerate(names)]


def to_be_ranked(examples: Sequence[tuple[str, TaskExample]]) -> list[Question]:
    """Returns the examples as requests to rank two answers of their task."""
    labels = {
        name: sorted({example.targets for other, example in examples if other == name})[:2]
        for name in PROMPTS
    }
    return [
        {"prompt": name, "inputs": example.inputs, "labels": labels[name]}
        for name, example in examples
    ]


def accuracy(examples: Sequence[tuple[str, TaskExample]], texts: Sequence[str]) -> dict[str, float]:
    """Returns each task's score, by its own metric."""
    scores = {}
    for name in PROMPTS:
        rows = [i for i, (other, _) in enumerate(examples) if other == name]
        metadata = [
            {"targets": example.targets, **example.metadata}
            for example in (examples[i][1] for i in rows)
        ]
        found = get_task(f"tinyworld_{name}").evaluate(metadata, [texts[i] for i in rows])
        scores[name] = found["accuracy"]
    return scores


def answered_alone(predictor: Predictor, asked: Sequence[Question]) -> list[Answer]:
    """Returns the answer to each request alone."""
    answers = []
    for question in asked:
        example = Example(**{**question, "labels": tuple(question.get("labels", ()))})
        (answer,) = predictor.predict([example])
        answers.append({"prediction": answer.text, "scores": dict(answer.scores)})
    return answers


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """Runs the server in a separate process, and yields its URL."""
    command = [sys.executable, "-m", "prompt_tuning.cli", "serve", str(folder), "--port=0"]
    command += ["--warm_up=0"]  # then the URL is in the first line
    command += [MODEL_FILE, f"--gin.TASK_FEATURE_LENGTHS={LENGTHS}", *flags]
    # The two servers compile the same programs.
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+?(?=;)", line)
        assert found, f"the server said: {line}{process.stderr.read() if process.poll() else ''}"
        try:
            yield found[0]
        finally:
            process.terminate()
            status = process.wait(TIMEOUT)
    assert status == 0, f"the server ended with status {status}"


class Client:
    """A persistent connection."""

    def __init__(self, url: str):
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)

    def get(self, path: str) -> str:
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()

    def ask(self, question: Question) -> tuple[int, Answer]:
        body = json.dumps(question)
        self._connection.request("POST", "/predict", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        return response.status, json.load(response)


def load(
    url: str, asked: Sequence[Question], clients: int
) -> tuple[list[tuple[int, Answer]], list[float], float]:
    """Sends every request once, from `clients` concurrent clients.

    Returns:
      The statuses and answers in the order of the questions, the seconds each took, and the
      seconds all took.
    """
    answers: list[Any] = [(0, {})] * len(asked)
    seconds = [0.0] * len(asked)
    numbers = iter(range(len(asked)))
    lock = threading.Lock()

    def work() -> None:
        client = Client(url)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            started = time.perf_counter()
            answers[number] = client.ask(asked[number])
            seconds[number] = time.perf_counter() - started

    threads = [threading.Thread(target=work) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, seconds, time.perf_counter() - started


def compiled_load(
    url: str, asked: Sequence[Question], clients: int
) -> tuple[list[tuple[int, Answer]], list[float], float, float]:
    """Repeats all requests until a pass has no new batch shapes.

    Returns:
      What `load` returned for that pass, and how many batches it took.
    """
    for _ in range(MOST_PASSES):
        shapes, run = metric(url, "compiled_shapes"), metric(url, "batch_examples_count")
        loaded = load(url, asked, clients)
        if metric(url, "compiled_shapes") == shapes:
            return *loaded, metric(url, "batch_examples_count") - run
    raise RuntimeError(f"the server still compiles after {MOST_PASSES} passes")


def compare(
    asked: Sequence[Question], found: Sequence[tuple[int, Answer]], alone: Sequence[Answer]
) -> dict[str, int]:
    """Counts the requests that failed, and the answers that aren't those of the example alone."""
    failed = mixed_up = 0
    for question, (status, answer), expected in zip(asked, found, alone, strict=True):
        if status != 200:
            failed += 1
            continue
        same = (answer["prompt"], answer["prediction"]) == (
            question["prompt"],
            expected["prediction"],
        ) and all(
            abs(answer["scores"][label] - score) < 1e-3
            for label, score in expected["scores"].items()
        )
        mixed_up += not same
    return {"requests": len(asked), "failed": failed, "not_as_alone": mixed_up}


def timed(seconds: Sequence[float], total: float, clients: int) -> dict[str, float]:
    """Returns the rate and the clients' latencies."""
    return {
        "clients": clients,
        "requests_per_second": len(seconds) / total,
        "latency_seconds_median": statistics.median(seconds),
        "latency_seconds_p95": statistics.quantiles(seconds, n=20)[-1],
    }


def metric(url: str, name: str) -> float:
    """Returns one of the server's counters."""
    found = re.search(rf"^prompt_tuning_{name} (\S+)$", Client(url).get("/metrics"), re.M)
    assert found, f"the server counts no {name}"
    return float(found[1])


def measure(folder: Path, *, requests: int, clients: int) -> dict[str, Any]:
    """Returns everything this benchmark reports."""
    examples = validation_examples(requests)
    asked = [{"prompt": name, "inputs": example.inputs} for name, example in examples]
    ranked = to_be_ranked(examples)
    predictor = Predictor(
        *load_frozen(MODEL),
        Vocabulary(VOCABULARY),
        prompts={name: load_prompt(folder / f"{name}.safetensors")[0] for name in PROMPTS},
        max_input_length=LENGTHS["inputs"],
        decoding=DecodingOptions(max_length=LENGTHS["targets"]),
    )
    alone, alone_ranked = answered_alone(predictor, asked), answered_alone(predictor, ranked)

    with serving(folder, "--max_wait=0") as url:
        few = asked[: max(20, requests // 4)]
        found, seconds, total, _ = compiled_load(url, few, 1)
        one = timed(seconds, total, 1) | compare(few, found, alone[: len(few)])
    with serving(folder) as url:
        found, seconds, total, run = compiled_load(url, asked, clients)
        many = timed(seconds, total, clients) | compare(asked, found, alone)
        many["examples_per_batch"] = len(asked) / run
        by_scores = compare(ranked, load(url, ranked, clients)[0], alone_ranked)
        compiled = metric(url, "compiled_shapes")
    return {
        "model": MODEL,
        "prompt_lengths": PROMPTS,
        "accuracy": accuracy(examples, [answer.get("prediction", "") for _, answer in found]),
        "one_at_a_time": one,
        "many_at_once": many,
        "many_over_one": many["requests_per_second"] / one["requests_per_second"],
        "many_at_once_by_scores": by_scores,
        "distinct_score_pairs": len({tuple(a["scores"].values()) for a in alone_ranked}),
        "compiled_shapes": int(compiled),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_at_end": os.getloadavg()[0],
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "jax": jax.__version__,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for a reader."""
    rows = []
    for name in ("one_at_a_time", "many_at_once"):
        found = result[name]
        rows.append(
            f"  {name.replace('_', ' '):<14}{found['clients']:>4} clients"
            f"{found['requests_per_second']:>9.1f} requests/s"
            f"{1000 * found['latency_seconds_median']:>9.1f} ms median"
            f"{1000 * found['latency_seconds_p95']:>9.1f} ms p95"
            f"{found['failed']:>5} failed{found['not_as_alone']:>4} not as alone"
        )
    scores = result["many_at_once_by_scores"]
    accuracy = ", ".join(f"{name} {value:.3f}" for name, value in result["accuracy"].items())
    return "\n".join(
        [
            f"{result['model']}, prompts of {list(result['prompt_lengths'].values())} tokens",
            *rows,
            f"  many over one: {result['many_over_one']:.1f} times, "
            f"{result['many_at_once']['examples_per_batch']:.1f} examples a batch",
            f"  by log-likelihoods: {scores['failed']} failed, {scores['not_as_alone']} of "
            f"{scores['requests']} not as alone",
            f"  accuracy: {accuracy}",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few requests, to try the benchmark")
    parser.add_argument("--requests", type=int, default=800, help="questions, at most 800")
    parser.add_argument("--clients", type=int, default=32, help="clients that ask at once")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "prompts"
        folder.mkdir()
        train_prompts(folder, 5 if options.quick else 100)
        result = measure(
            folder,
            requests=40 if options.quick else options.requests,
            clients=4 if options.quick else options.clients,
        )
    print(table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    wrong = sum(
        result[name][count]
        for name in ("one_at_a_time", "many_at_once", "many_at_once_by_scores")
        for count in ("failed", "not_as_alone")
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
