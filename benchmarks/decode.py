"""Measures the speed of greedy decoding of 8 tokens and of rank classification, against PEFT.

    python benchmarks/decode.py [--quick] [--rounds N] [--peer_python PYTHON]

T5 1.1 Small with random weights, a 100-token prompt, batch 8, encoder 128, float32. No token ends
an answer, so both decode all 8. For rank classification each input is scored with three labels of
4 tokens: ours runs the encoder once per example; PEFT's interface needs a forward pass of the input
with every label. The processes take turns (`contenders.py`). The numbers are also written to
benchmarks/results/decode.json.
"""

import argparse
from pathlib import Path
from typing import Any

import contenders

from prompt_tuning.models.config import T5Config, get_config

RESULTS = Path(__file__).parent / "results" / "decode.json"
BATCH, LABELS = 8, 3
TASKS: dict[str, dict[str, Any]] = {
    "decode": {"target": 8},
    "rank": {"target": 4, "labels": LABELS},
}
TARGET = 2.0
"""Times as fast as PEFT, at least."""


def measure(
    config: T5Config, *, prompt: int, source: int, python: str | None, rounds: int
) -> dict[str, Any]:
    """Returns each contender's seconds per batch and peak memory."""
    found: dict[str, Any] = {}
    for task, setup in TASKS.items():
        setup = {"task": task, "prompt": prompt, **setup}
        taking_part = [contenders.ours("ours", config, **setup)]
        if python:
            taking_part.append(contenders.peft("peft", config, python, dtype="float32", **setup))
        piece = {"lengths": [source] * BATCH, "padded": source}
        work = {contender.name: [piece] for contender in taking_part}
        timed = contenders.take_turns(taking_part, work, rounds=rounds)
        found[task] = {
            name: {
                "seconds_median": contenders.median_total(result),
                "peak_bytes": result["peak_bytes"],
                "warm_up_seconds": result["compile_seconds"],
                "versions": result["versions"],
            }
            for name, result in timed.items()
        }
    return {
        "model": config.name,
        "batch": BATCH,
        "prompt_length": prompt,
        "encoder_length": source,
        "tasks": TASKS,
        "rounds": rounds,
        "contenders": found,
    }


def report(result: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Returns the result as a table, and compared with the target."""
    rows: list[tuple[str, float, str, float | None]] = []
    for task, found in result["contenders"].items():
        for name, of_one in found.items():
            rows.append((f"{task}, {name}: median, s a batch", of_one["seconds_median"], "", None))
        if "peft" in found:
            ratio = found["peft"]["seconds_median"] / found["ours"]["seconds_median"]
            rows.append((f"{task}: times as fast as PEFT", ratio, ">=", TARGET))
    title = "{model}: prompt {prompt_length}, batch {batch}, encoder {encoder_length}"
    return contenders.comparison(title.format(**result), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--rounds", type=int, default=10, help="batches of each")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    contenders.add_peer_options(parser)
    options = parser.parse_args(arguments)

    quick = options.quick
    result = measure(
        contenders.QUICK if quick else get_config("t5_1_1_small"),
        prompt=10 if quick else 100,
        source=30 if quick else 128,
        python=None if options.no_peer else contenders.peer_python(options.peer_python),
        rounds=2 if quick else options.rounds,
    )
    table, targets = report(result)
    print(table)
    contenders.write(options.output, {**result, "targets": targets})


if __name__ == "__main__":
    main()
