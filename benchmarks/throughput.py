"""Measures the training examples per second on real tasks, by batching strategy.

    python benchmarks/throughput.py [--quick] [--tasks rte cb ...] [--data FOLDER]
                                    [--peer_python PYTHON]

T5 1.1 Small with random weights and a 100-token prompt, float32, on inputs with the lengths of the
official RTE, CB, WiC, COPA and BoolQ files under T5's vocabulary (of BoolQ the validation rows).
The ids themselves are random, since only their number matters. Three strategies take turns
(`contenders.py`), each through batches in training's random order:

- ours: batches of a constant number of tokens, in at most six shapes (`data/token_batches.py`);
- ours_512: eight examples per batch, every input padded to 512, as in the paper's code;
- peft: Hugging Face PEFT on torch, eight examples per batch, each batch padded to its longest.

The results also have the gain by FLOPs alone: the minimum FLOPs of each strategy's batches
(`analysis/flops.py`), over those of the same inputs without any padding.

`--data` is the folder with `superglue/` and `vocab/t5_sentencepiece_32k.model`. The numbers are
also written to benchmarks/results/throughput.json.
"""

import argparse
import functools
import os
from pathlib import Path
from typing import Any

import contenders
import numpy as np

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.data.batching import BatchStream
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.token_batches import TokenBatchStream, TokenBudget
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.models.config import T5Config, get_config

RESULTS = Path(__file__).parent / "results" / "throughput.json"
DATA = Path(__file__).parents[2] / "shared" / "data"
SPLITS = {"rte": "train", "cb": "train", "wic": "train", "copa": "train", "boolq": "validation"}
LONGEST, TARGET_LENGTH, ROWS = 512, 8, 8
OVER_PADDED, OVER_PEFT = 4.0, 3.0
"""The targets: times as many examples a second."""
PADDING_STEPS = 512
"""Batches over which padding and shapes are counted, at least: epochs of the small tasks."""

Piece = dict[str, Any]


def read_lengths(task: str, data: Path) -> np.ndarray:
    """Returns the tokens of each input of a task, end of sequence counted, at most 512."""
    vocabulary = Vocabulary(data / "vocab" / "t5_sentencepiece_32k.model")
    examples = get_task(f"superglue_{task}").examples(SPLITS[task], str(data / "superglue"))
    lengths = [len(vocabulary.encode(example.inputs)) + 1 for example in examples]
    return np.minimum(lengths, LONGEST)


def as_split(lengths: np.ndarray) -> TokenizedSplit:
    """Returns random inputs of these lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ones = np.ones(len(lengths), np.int32)
    return TokenizedSplit(
        task="lengths",
        split="train",
        inputs=Ragged(np.ones(offsets[-1], np.int32), offsets),
        targets=Ragged(ones, np.arange(len(lengths) + 1)),
        metadata_json=b"",
    )


def our_pieces(lengths: np.ndarray, budget: TokenBudget, steps: int) -> list[Piece]:
    """Returns the first steps' batches of a constant number of tokens."""
    stream = TokenBatchStream(as_split(lengths), budget=budget, seed=0)
    found = []
    for step in range(steps):
        padded = stream.batch(step)["encoder_input_tokens"].shape[1]
        rows = lengths[stream.examples(step)[:, 1]]
        found.append({"lengths": rows.tolist(), "padded": padded})
    return found


def random_pieces(lengths: np.ndarray, steps: int, padded: int | None) -> list[Piece]:
    """Returns batches of eight in random order, padded to their longest or to `padded`."""
    stream = BatchStream(as_split(lengths), batch_size=ROWS, seed=0, num_lengths=1, max_window=1)
    batches = [lengths[stream.examples(step)[:, 1]] for step in range(steps)]
    return [{"lengths": b.tolist(), "padded": int(padded or b.max())} for b in batches]


def padding(pieces: list[Piece], prompt: int) -> float:
    """Returns the share of padding among the encoder's positions, including the prompt's."""
    computed = sum(len(p["lengths"]) * (p["padded"] + prompt) for p in pieces)
    return 1 - sum(sum(p["lengths"]) + prompt * len(p["lengths"]) for p in pieces) / computed


def flops_over_unpadded(pieces: list[Piece], config: T5Config, prompt: int) -> float:
    """Returns the FLOPs of steps on these batches over those of the same inputs unpadded."""

    @functools.cache
    def of_example(source: int) -> int:
        shape = {"batch": 1, "prompt": prompt, "source": source, "target": TARGET_LENGTH}
        return step_flops(config, **shape).total

    padded = sum(len(p["lengths"]) * of_example(p["padded"]) for p in pieces)
    return padded / sum(of_example(length) for p in pieces for length in p["lengths"])


def measure(
    lengths: dict[str, np.ndarray],
    *,
    config: T5Config,
    prompt: int,
    steps: int,
    rounds: int,
    python: str | None,
) -> dict[str, Any]:
    """Returns each strategy's examples per second on each task."""
    budget = TokenBudget(tokens=ROWS * (prompt + 128), extra=prompt, num_lengths=6)
    counted = max(steps, PADDING_STEPS)
    setup = {"task": "step", "prompt": prompt, "target": TARGET_LENGTH}
    found = {}
    for task, of_task in lengths.items():
        many = {
            "ours": our_pieces(of_task, budget, counted),
            "ours_512": random_pieces(of_task, counted, LONGEST),
            "peft": random_pieces(of_task, counted, None),
        }
        work = {
            "ours": many["ours"][:steps],
            # All of these cost the same: few are enough.
            "ours_512": many["ours_512"][: max(1, steps // 8)],
        }
        taking_part = [contenders.ours(name, config, **setup) for name in work]
        if python:
            work["peft"] = many["peft"][:steps]
            taking_part.append(contenders.peft("peft", config, python, dtype="float32", **setup))
        timed = contenders.take_turns(taking_part, work, rounds=rounds)
        found[task] = {
            name: {
                "examples_per_second": sum(len(p["lengths"]) for p in pieces)
                / contenders.median_total(timed[name]),
                "padding": padding(many[name], prompt),
                "padding_of_inputs_alone": padding(many[name], 0),
                "flops_over_unpadded": flops_over_unpadded(many[name], config, prompt),
                "shapes": len({(len(p["lengths"]), p["padded"]) for p in many[name]}),
                "peak_bytes": timed[name]["peak_bytes"],
                "warm_up_seconds": timed[name]["compile_seconds"],
                "versions": timed[name]["versions"],
            }
            for name, pieces in work.items()
        }
    return {
        "model": config.name,
        "prompt_length": prompt,
        "decoder_length": TARGET_LENGTH,
        "batch_tokens": budget.tokens,
        "steps": steps,
        "padding_steps": counted,
        "rounds": rounds,
        "tasks": found,
    }


def report(result: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Returns the result as a table for a reader, and against the targets."""
    rows: list[tuple[str, float, str, float | None]] = []
    for task, found in result["tasks"].items():
        for name, of_one in found.items():
            rows.append((f"{task}, {name}: examples/s", of_one["examples_per_second"], "", None))
        our = found["ours"]["examples_per_second"]
        rows.append((f"{task}: padding", found["ours"]["padding"], "<=", 0.10))
        rows.append((f"{task}: compiled shapes", found["ours"]["shapes"], "<=", 6))
        over = our / found["ours_512"]["examples_per_second"]
        rows.append((f"{task}: times as fast as padded to 512", over, ">=", OVER_PADDED))
        flops = found["ours_512"]["flops_over_unpadded"]
        rows.append((f"{task}: FLOPs padded to 512 / unpadded", flops, "", None))
        if "peft" in found:
            over = our / found["peft"]["examples_per_second"]
            rows.append((f"{task}: times as fast as PEFT", over, ">=", OVER_PEFT))
            flops = found["peft"]["flops_over_unpadded"]
            rows.append((f"{task}: FLOPs as PEFT pads / unpadded", flops, "", None))
    title = (
        "{model}: prompt {prompt_length}, decoder {decoder_length}, {batch_tokens} tokens a batch"
    )
    return contenders.comparison(title.format(**result), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--tasks", nargs="+", choices=list(SPLITS), default=list(SPLITS))
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("PROMPT_TUNING_DATA", DATA))
    )
    parser.add_argument("--steps", type=int, default=32, help="batches of each a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    contenders.add_peer_options(parser)
    options = parser.parse_args(arguments)
    if not options.data.is_dir():
        parser.error(f"no data at {options.data}; give --data or set PROMPT_TUNING_DATA")

    quick = options.quick
    result = measure(
        {task: read_lengths(task, options.data) for task in options.tasks},
        config=contenders.QUICK if quick else get_config("t5_1_1_small"),
        prompt=100,
        steps=8 if quick else options.steps,
        rounds=1 if quick else options.rounds,
        python=None if options.no_peer else contenders.peer_python(options.peer_python),
    )
    table, targets = report(result)
    print(table)
    contenders.write(options.output, {**result, "targets": targets})


if __name__ == "__main__":
    main()
