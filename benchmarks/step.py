"""Measures the speed of a prompt-tuning step and its hardware utilization, against PEFT.

    make bench-peft     (python benchmarks/step.py [--quick] [--rounds N] [--peer_python PYTHON])
    make bench          (the same with --no_peer: only ours)

T5 1.1 Small with random weights, a 100-token prompt, batch 8, encoder 128, decoder 8, ours with the
paper's Adafactor, in float32 and, where the CPU has instructions for it, with products of bfloat16
inputs summed in float32; the same in two microbatches ("in halves"), which needs less memory;
against Hugging Face PEFT on torch in float32 and bfloat16. The processes take turns in one run
(`contenders.py`). It reports

- the median step time and the process's peak resident memory;
- the FLOPs of our step, as XLA counts them in the lowered program, against the fewest that the
  mathematics allows (`prompt_tuning/analysis/flops.py`), which shows that no gradient of a frozen
  weight is computed;
- the share of this machine's matrix-product peak that our step reaches: the minimum FLOPs over
  the step's time, against products of two 2048 x 2048 matrices timed in the same run, of the same
  kind as the step's.

XLA counts a loop's body only once, so FLOPs are counted on the program with all layers unrolled,
whichever was timed. The numbers are also written to benchmarks/results/step.json.
"""

import argparse
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import contenders
import jax
import jax.numpy as jnp

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.hardware import fastest_matmul_dtype
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

RESULTS = Path(__file__).parent / "results" / "step.json"
STEPS_A_TURN = 3
IN_HALVES = "ours_in_halves"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is benchmarked; lengths are in tokens, and `source` doesn't count the prompt."""

    config: T5Config
    batch: int = 8
    prompt: int = 100
    source: int = 128
    target: int = 8
    unroll: int = 0


FULL = Setting(config=get_config("t5_1_1_small"))
QUICK = Setting(config=contenders.QUICK, prompt=10, source=30)


def minimum_flops(setting: Setting) -> int:
    """Returns the minimum FLOPs of a step's matrix products."""
    return step_flops(
        setting.config,
        batch=setting.batch,
        prompt=setting.prompt,
        source=setting.source,
        target=setting.target,
    ).total


def xla_flops(setting: Setting) -> int:
    """Returns the FLOPs of a step as XLA counts them in the lowered program, unrolled."""
    config = setting.config
    method = SoftPrompt(length=setting.prompt, embed_dim=config.embed_dim)
    optimizer = adafactor(0.3)
    step = make_train_step(
        prompt_loss_fn(T5(config, Compute(unroll=0)), method, LossOptions()), optimizer
    )

    def shape(length: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((setting.batch, length), dtype)

    batch = {
        "encoder_input_tokens": shape(setting.source),
        "decoder_input_tokens": shape(setting.target),
        "decoder_target_tokens": shape(setting.target),
        "decoder_loss_weights": shape(setting.target, jnp.float32),
    }
    state = jax.eval_shape(
        lambda key, batch: TrainState.create(method.init(key, batch), optimizer),
        jax.random.key(0),
        batch,
    )
    lowered = step.lower(state, abstract_params(config), batch, jax.random.key(0))
    cost: Any = lowered.cost_analysis()
    return round(cost["flops"])


def matmul_peak(size: int, dtype: str, repeats: int = 10) -> float:
    """Returns the FLOP/s of the best of some products of two square matrices, summed in float32."""
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    product = jax.jit(lambda x, y: jnp.matmul(x, y, preferred_element_type=jnp.float32))
    product(x, x).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def entrants(setting: Setting, python: str | None) -> list[contenders.Contender]:
    """Returns the contenders: bfloat16 on machines where it is faster, PEFT if it is installed."""
    common = {"task": "step", "prompt": setting.prompt, "target": setting.target}
    dtypes = ["float32"] + ["bfloat16"] * (fastest_matmul_dtype("cpu") == "bfloat16")
    found = []
    for dtype in dtypes:
        compute = Compute(matmul_dtype=dtype, unroll=setting.unroll)
        for name, parts in (("ours", 1), (IN_HALVES, 2)):
            found.append(
                contenders.ours(
                    f"{name}_{dtype}", setting.config, compute, **common, microbatches=parts
                )
            )
        if python:
            peer = contenders.peft(f"peft_{dtype}", setting.config, python, dtype=dtype, **common)
            found.append(peer)
    return found


def measure(setting: Setting, *, python: str | None, rounds: int, peak_size: int) -> dict[str, Any]:
    """Returns everything this benchmark reports; the peak is the better of before and after."""
    taking_part = entrants(setting, python)
    dtypes = {contender.name.rpartition("_")[2] for contender in taking_part}
    peaks = {dtype: matmul_peak(peak_size, dtype) for dtype in sorted(dtypes, reverse=True)}
    piece = {"lengths": [setting.source] * setting.batch, "padded": setting.source}
    work = {contender.name: [piece] * STEPS_A_TURN for contender in taking_part}
    timed = contenders.take_turns(taking_part, work, rounds=rounds)
    peaks = {dtype: max(peak, matmul_peak(peak_size, dtype)) for dtype, peak in peaks.items()}

    minimum, counted = minimum_flops(setting), xla_flops(setting)
    of_each = {}
    for name, result in timed.items():
        seconds = [time for times in result["seconds"] for time in times]
        of_each[name] = {
            "step_seconds_median": statistics.median(seconds),
            "step_seconds_best": min(seconds),
            "examples_per_second": setting.batch / statistics.median(seconds),
            "peak_bytes": result["peak_bytes"],
            "warm_up_seconds": result["compile_seconds"],
            "versions": result["versions"],
        }
        who, _, dtype = name.rpartition("_")
        if who != "peft":
            median = of_each[name]["step_seconds_median"]
            of_each[name]["fraction_of_peak"] = minimum / median / peaks[dtype]
    return {
        "model": setting.config.name,
        "batch": setting.batch,
        "prompt_length": setting.prompt,
        "encoder_length": setting.source,
        "decoder_length": setting.target,
        "unroll": setting.unroll,
        "steps": rounds * STEPS_A_TURN,
        "xla_flops": counted,
        "minimum_flops": minimum,
        "xla_over_minimum": counted / minimum,
        "matmul_peak_flops_per_second": peaks,
        "contenders": of_each,
    }


# Of our time over PEFT's and of our share of the peak, by dtype.
TIME_TARGETS = {"float32": 0.4, "bfloat16": 0.55}
PEAK_TARGETS = {"float32": 0.8, "bfloat16": 0.65}
MEMORY_TARGET = 0.7


def report(result: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Returns the result as a table, and compared with the targets."""
    of_each = result["contenders"]
    rows: list[tuple[str, float, str, float | None]] = []
    for name, found in of_each.items():
        rows.append((f"{name}: median step, s", found["step_seconds_median"], "", None))
        rows.append((f"{name}: peak memory, GB", found["peak_bytes"] / 1e9, "", None))
    rows.append(("XLA's FLOPs / minimum", result["xla_over_minimum"], "<=", 1.03))
    for dtype, peak in result["matmul_peak_flops_per_second"].items():
        rows.append((f"matmul peak {dtype}, GFLOP/s", peak / 1e9, "", None))
        peer = of_each.get(f"peft_{dtype}")
        for name in (f"ours_{dtype}", f"{IN_HALVES}_{dtype}"):
            our = of_each[name]
            share = our["fraction_of_peak"]
            rows.append((f"{name}: share of that peak", share, ">=", PEAK_TARGETS[dtype]))
            if peer:
                ratio = our["step_seconds_median"] / peer["step_seconds_median"]
                rows.append((f"{name}: time over PEFT's", ratio, "<=", TIME_TARGETS[dtype]))
                ratio = our["peak_bytes"] / peer["peak_bytes"]
                rows.append((f"{name}: peak memory over PEFT's", ratio, "<=", MEMORY_TARGET))
    title = "{model}: prompt {prompt_length}, batch {batch}, encoder {encoder_length}, decoder "
    title += "{decoder_length}, {steps} steps"
    return contenders.comparison(title.format(**result), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument(
        "--rounds", type=int, default=5, help=f"turns, of {STEPS_A_TURN} steps each"
    )
    parser.add_argument("--unroll", type=int, default=0, help="layers a scan step holds; 0: all")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    contenders.add_peer_options(parser)
    options = parser.parse_args(arguments)

    setting = QUICK if options.quick else FULL
    result = measure(
        dataclasses.replace(setting, unroll=options.unroll),
        python=None if options.no_peer else contenders.peer_python(options.peer_python),
        rounds=1 if options.quick else options.rounds,
        peak_size=256 if options.quick else 2048,
    )
    table, targets = report(result)
    print(table)
    contenders.write(options.output, {**result, "targets": targets})


if __name__ == "__main__":
    main()
