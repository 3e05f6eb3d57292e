"""How many requests a second `prompt-tuning serve` answers, and whether each gets its own answer.

    python benchmarks/serving.py [--quick] [--requests N] [--clients N] [--output FILE]

Trains two prompts of different lengths for TinyWorld Small, serves them on loopback, and asks

- one at a time: one client waits for each answer before it asks again. The server is told not to
  wait for company (`--max_wait=0`), which is the best it can do for such a client;
- many at once: as many clients as told, each with a connection of its own, on a server with the
  default settings, which batches what they ask.

The questions are validation examples of both tasks in turn. Every answer is compared with that of
a `Predictor` which is given the example alone, and the texts are scored. Texts of different
examples may be equal; so the many ask once more, untimed, for the log-likelihoods of labels, which
tell every example from every other. The numbers go to benchmarks/results/serving.json as well.

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
from prompt_tuning.checkpoints.frozen import load_frozen
from prompt_tuning.checkpoints.prompt_files import load_prompt
from prompt_tuning.data.tasks.task import get_task
from prompt_tuning.data.vocabularies import Vocabulary

RESULTS = Path(__file__).parent / "results" / "serving.json"
MODEL = "tinyworld_small"
MODEL_FILE = f"--gin_file=models/{MODEL}.gin"
VOCABULARY = Path(__file__).parents[1] / "prompt_tuning/assets/tinyworld/tinyworld.model"
PROMPTS = {"rte": 20, "wsc": 5}
LENGTHS = {"inputs": 64, "targets": 4}
TIMEOUT = 120
"""Seconds that a request, or the server's start, may take."""

Question = dict[str, Any]
Answer = dict[str, Any]


def train_prompts(folder: Path, steps: int) -> None:
    """Trains a prompt for each task and puts it into `folder` under the task's name."""
    for name, length in PROMPTS.items():
        run = folder.parent / f"run_{name}"
        command = [sys.executable, "-m", "prompt_tuning.cli.train", MODEL_FILE]
        command += [f"--gin_file=tasks/tinyworld_{name}.gin", "--gin_file=runs/train.gin"]
        command += ["--gin_file=prompts/sampled_vocabulary.gin"]
        command += [f"--gin.MODEL_DIR={run}", f"--gin.PROMPT_LENGTH={length}"]
        command += [f"--gin.TRAIN_STEPS={steps}", f"--gin.train.eval_every={max(1, steps // 5)}"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        best = run / "prompt_best.safetensors"
        (folder / f"{name}.safetensors").write_bytes(best.read_bytes())


def questions(number: int) -> tuple[list[Question], list[str]]:
    """Returns validation examples of the tasks in turn, and the right answers."""
    tasks = {name: list(get_task(f"tinyworld_{name}").examples("validation")) for name in PROMPTS}
    asked, right = [], []
    for i in range(number):
        name = list(PROMPTS)[i % len(PROMPTS)]
        example = tasks[name][i // len(PROMPTS) % len(tasks[name])]
        asked.append({"prompt": name, "inputs": example.inputs})
        right.append(example.targets)
    return asked, right


def with_labels(asked: Sequence[Question], right: Sequence[str]) -> list[Question]:
    """Returns the same questions, to be answered by one of two labels."""
    labels = {name: sorted({right[i] for i, q in enumerate(asked) if q["prompt"] == name})[:2]
              for name in PROMPTS}  # fmt: skip
    return [{**question, "labels": labels[question["prompt"]]} for question in asked]


def answered_alone(predictor: Predictor, asked: Sequence[Question]) -> list[Answer]:
    """Returns what each question is answered by itself, the same ones only once."""
    answers: dict[str, Answer] = {}
    for question in asked:
        key = json.dumps(question)
        if key not in answers:
            example = Example(**{**question, "labels": tuple(question.get("labels", ()))})
            (answer,) = predictor.predict([example])
            answers[key] = {"prediction": answer.text, "scores": dict(answer.scores)}
    return [answers[json.dumps(question)] for question in asked]


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[str]:
    """Runs the server in a process of its own, and gives its URL."""
    command = [sys.executable, "-m", "prompt_tuning.cli.serve", str(folder), "--port=0"]
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
    """One connection that is kept."""

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
    """Asks every question once, by so many clients at once.

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
    """Returns the rate, and what a client had to wait."""
    return {
        "clients": clients,
        "requests_per_second": len(seconds) / total,
        "latency_seconds_median": statistics.median(seconds),
        "latency_seconds_p95": statistics.quantiles(seconds, n=20)[-1],
    }


def batches(url: str) -> tuple[float, float]:
    """Returns how many batches the server has run, and how many examples were in them."""
    text = Client(url).get("/metrics")
    values = dict(re.findall(r"^prompt_tuning_batch_examples_(count|sum) (\S+)$", text, re.M))
    return float(values["count"]), float(values["sum"])


def measure(folder: Path, *, requests: int, clients: int) -> dict[str, Any]:
    """Returns everything this benchmark reports."""
    asked, right = questions(requests)
    ranked = with_labels(asked, right)
    predictor = Predictor(
        *load_frozen(MODEL),
        Vocabulary(VOCABULARY),
        prompts={name: load_prompt(folder / f"{name}.safetensors")[0] for name in PROMPTS},
        max_input_length=LENGTHS["inputs"],
    )
    alone, alone_ranked = answered_alone(predictor, asked), answered_alone(predictor, ranked)

    with serving(folder, "--max_wait=0") as url:
        load(url, asked[: requests // 4], 1)  # compiles
        found, seconds, total = load(url, asked[: max(20, requests // 4)], 1)
        one = timed(seconds, total, 1) | compare(asked[: len(found)], found, alone[: len(found)])
    with serving(folder) as url:
        load(url, asked, clients)  # compiles
        before = batches(url)
        found, seconds, total = load(url, asked, clients)
        after = batches(url)
        many = timed(seconds, total, clients) | compare(asked, found, alone)
        many["examples_per_batch"] = (after[1] - before[1]) / (after[0] - before[0])
        by_scores = compare(ranked, load(url, ranked, clients)[0], alone_ranked)
        compiled = re.search(r"compiled_shapes (\S+)", Client(url).get("/metrics"))
    scores = [
        answer["prediction"] == target for (_, answer), target in zip(found, right, strict=True)
    ]
    assert compiled is not None
    return {
        "model": MODEL,
        "prompt_lengths": PROMPTS,
        "accuracy": {
            name: statistics.mean(
                score for score, q in zip(scores, asked, strict=True) if q["prompt"] == name
            )
            for name in PROMPTS
        },
        "one_at_a_time": one,
        "many_at_once": many,
        "many_over_one": many["requests_per_second"] / one["requests_per_second"],
        "many_at_once_by_scores": by_scores,
        "distinct_score_pairs": len({tuple(a["scores"].values()) for a in alone_ranked}),
        "compiled_shapes": int(float(compiled[1])),
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
    parser.add_argument("--requests", type=int, default=1000, help="questions to ask at once")
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
