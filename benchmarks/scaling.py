"""Measures how step time grows with the model, the prompt and the input.

    python benchmarks/scaling.py [--quick] [--rounds N]

One size at a time is varied around T5 1.1 Small with a 100-token prompt, batch 8, encoder 128,
decoder 8, float32, random weights:

- the model's width (attention, feed-forward and embedding together; the number of layers and the
  vocabulary are fixed), given by its number of parameters without the embeddings;
- the prompt's length;
- the input's length.

All are compiled first and then timed in turns. We fit the exponent of a power law, the slope of
log(time) over log(size), for the time and for the minimum FLOPs. For prompt and input, the size is
prompt + input, the positions that the encoder computes. The numbers are also written to
benchmarks/results/scaling.json.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contenders
import numpy as np
from step import Setting, minimum_flops

from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import count_parameters

RESULTS = Path(__file__).parent / "results" / "scaling.json"

FULL = Setting(config=get_config("t5_1_1_small"))
QUICK = Setting(config=contenders.QUICK, prompt=10, source=32)


def widened(config: T5Config, factor: float) -> T5Config:
    """Returns a model with its width multiplied by a factor, and an integer number of heads."""
    heads = max(1, round(config.num_heads * factor))
    return dataclasses.replace(
        config,
        name=f"{config.name}_x{factor:g}",
        embed_dim=round(config.embed_dim * factor),
        mlp_dim=round(config.mlp_dim * factor),
        num_heads=heads,
    )


def body_parameters(config: T5Config) -> int:
    """Returns the number of weights without the embeddings and the output layer."""
    embeddings = (1 if config.tie_embeddings else 2) * config.vocab_size * config.embed_dim
    return count_parameters(abstract_params(config)) - embeddings


def series(base: Setting, *, quick: bool) -> dict[str, list[tuple[float, Setting]]]:
    """Returns the sizes and the settings of each series."""
    factors = (0.5, 1.0) if quick else (0.5, 1.0, 1.5, 2.0)
    prompts = (1, 40) if quick else (1, 50, 100, 150, 250)
    sources = (16, 64) if quick else (32, 64, 128, 256, 512)
    models = [widened(base.config, factor) for factor in factors]
    replace = dataclasses.replace
    return {
        "model": [(body_parameters(c), replace(base, config=c)) for c in models],
        "prompt": [(p + base.source, replace(base, prompt=p)) for p in prompts],
        "input": [(base.prompt + s, replace(base, source=s)) for s in sources],
    }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns the slope of log(cost) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def measure(base: Setting, *, quick: bool, rounds: int) -> dict[str, Any]:
    """Returns every setting's time and FLOPs, and the exponents."""
    found: dict[str, Any] = {}
    for name, settings in series(base, quick=quick).items():
        taking_part, work = [], {}
        for size, s in settings:
            setup = {"task": "step", "prompt": s.prompt, "target": s.target}
            taking_part.append(contenders.ours(f"{name} {size}", s.config, **setup))
            work[f"{name} {size}"] = [{"lengths": [s.source] * s.batch, "padded": s.source}]
        timed = contenders.take_turns(taking_part, work, rounds=rounds)
        seconds = [timed[contender.name]["seconds"][0] for contender in taking_part]
        sizes = [size for size, _ in settings]
        medians = [statistics.median(times) for times in seconds]
        flops = [minimum_flops(setting) for _, setting in settings]
        found[name] = {
            "sizes": sizes,
            "seconds": medians,
            "minimum_flops": flops,
            "exponent_of_time": exponent(sizes, medians),
            "exponent_of_flops": exponent(sizes, flops),
        }
    return {
        "model": base.config.name,
        "batch": base.batch,
        "prompt_length": base.prompt,
        "encoder_length": base.source,
        "decoder_length": base.target,
        "rounds": rounds,
        "series": found,
    }


def report(result: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Returns the result as a table for a reader."""
    rows: list[tuple[str, float, str, float | None]] = []
    for name, found in result["series"].items():
        for size, seconds in zip(found["sizes"], found["seconds"], strict=True):
            rows.append((f"{name} {size:,}: s a step", seconds, "", None))
        rows.append((f"{name}: exponent of the time", found["exponent_of_time"], "", None))
        rows.append((f"{name}: exponent of the FLOPs", found["exponent_of_flops"], "", None))
    title = "{model}: prompt {prompt_length}, batch {batch}, encoder {encoder_length}"
    return contenders.comparison(title.format(**result), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each setting")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    result = measure(
        QUICK if options.quick else FULL,
        quick=options.quick,
        rounds=1 if options.quick else options.rounds,
    )
    print(report(result)[0])
    contenders.write(options.output, result)


if __name__ == "__main__":
    main()
