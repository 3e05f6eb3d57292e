"""How fast a training step of prompt tuning is, and how much of the machine it uses.

    make bench            (python benchmarks/step.py [--quick] [--steps N] [--unroll N])

T5 1.1 Small with random weights, a 100-token prompt, batch 8, encoder 128, decoder 8, float32,
the paper's Adafactor. It measures

- the median time of a step,
- the FLOPs of the compiled step, as XLA counts them, against the fewest that the mathematics
  allows (`minimum_flops`), which shows that no gradient of a frozen weight is computed,
- the share of this machine's matrix-product peak that the step reaches: the minimum FLOPs over
  the step's time, against products of two 2048 x 2048 float32 matrices timed in the same run.

XLA counts a loop's body once however often it runs, so FLOPs are counted on the program with all
layers unrolled, whichever was timed. The numbers go to benchmarks/results/step.json as well.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.analysis.flops import step_flops
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.config import T5Config, get_config
from prompt_tuning.models.t5 import T5, init_params
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn

RESULTS = Path(__file__).parent / "results" / "step.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is benchmarked; lengths are in tokens, and `source` doesn't count the prompt."""

    config: T5Config
    batch: int = 8
    prompt: int = 100
    source: int = 128
    target: int = 8


FULL = Setting(config=get_config("t5_1_1_small", unroll=0))
QUICK = Setting(
    config=T5Config(
        name="quick",
        vocab_size=512,
        embed_dim=128,
        num_heads=4,
        head_dim=32,
        mlp_dim=256,
        num_encoder_layers=2,
        num_decoder_layers=2,
        unroll=0,
    ),
    prompt=10,
    source=30,
)


def minimum_flops(setting: Setting) -> int:
    """Returns the fewest FLOPs of matrix products that a step can do with."""
    return step_flops(
        setting.config,
        batch=setting.batch,
        prompt=setting.prompt,
        source=setting.source,
        target=setting.target,
    ).total


def make_step(setting: Setting):
    """Returns the compiled-on-first-call training step and its arguments."""
    config = setting.config
    method = SoftPrompt(length=setting.prompt, embed_dim=config.embed_dim)
    optimizer = adafactor(0.3)
    step = make_train_step(prompt_loss_fn(T5(config), method, LossOptions()), optimizer)

    numbers = np.random.default_rng(0)
    tokens = {
        name: jnp.asarray(
            numbers.integers(2, config.vocab_size, (setting.batch, length)), jnp.int32
        )
        for name, length in [
            ("encoder_input_tokens", setting.source),
            ("decoder_input_tokens", setting.target),
            ("decoder_target_tokens", setting.target),
        ]
    }
    batch = {**tokens, "decoder_loss_weights": jnp.ones((setting.batch, setting.target))}
    frozen = init_params(config, jax.random.key(0))
    state = TrainState.create(method.init(jax.random.key(1), batch), optimizer)
    return step, state, frozen, batch


def xla_flops(setting: Setting) -> int:
    """Returns the FLOPs of a step as XLA counts them in the program it optimised, unrolled."""
    unrolled = dataclasses.replace(setting.config, unroll=0)
    step, state, frozen, batch = make_step(dataclasses.replace(setting, config=unrolled))
    compiled = step.lower(state, frozen, batch, jax.random.key(2)).compile()
    return round(compiled.cost_analysis()["flops"])


def step_seconds(setting: Setting, steps: int) -> list[float]:
    """Returns the time of each of so many steps, after two that warm up."""
    step, state, frozen, batch = make_step(setting)
    key = jax.random.key(2)
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        state, metrics = step(state, frozen, batch, key)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(metrics["loss"]):
        raise RuntimeError("The benchmark's loss isn't finite; its times mean nothing.")
    return seconds[2:]


def matmul_peak(size: int, repeats: int = 10) -> float:
    """Returns the FLOP/s of the best of some float32 products of two square matrices."""
    x = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def measure(setting: Setting, *, steps: int, peak_size: int) -> dict[str, float | int | str]:
    """Returns everything this benchmark reports; the peak is the better of before and after."""
    peak = matmul_peak(peak_size)
    seconds = step_seconds(setting, steps)
    peak = max(peak, matmul_peak(peak_size))
    median = statistics.median(seconds)
    minimum = minimum_flops(setting)
    counted = xla_flops(setting)
    return {
        "model": setting.config.name,
        "batch": setting.batch,
        "prompt_length": setting.prompt,
        "encoder_length": setting.source,
        "decoder_length": setting.target,
        "unroll": setting.config.unroll,
        "steps": steps,
        "step_seconds_median": median,
        "step_seconds_best": min(seconds),
        "examples_per_second": setting.batch / median,
        "xla_flops": counted,
        "minimum_flops": minimum,
        "xla_over_minimum": counted / minimum,
        "matmul_peak_flops_per_second": peak,
        "fraction_of_peak": minimum / median / peak,
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "jax": jax.__version__,
    }


def table(result: dict[str, float | int | str]) -> str:
    """Returns the result for a reader."""
    rows = [
        ("median step", f"{result['step_seconds_median']:.3f} s"),
        ("best step", f"{result['step_seconds_best']:.3f} s"),
        ("examples", f"{result['examples_per_second']:.2f} /s"),
        ("XLA's FLOPs a step", f"{result['xla_flops'] / 1e9:.2f} GFLOP"),
        ("analytic minimum", f"{result['minimum_flops'] / 1e9:.2f} GFLOP"),
        ("XLA / minimum", f"{result['xla_over_minimum']:.4f}"),
        ("matmul peak", f"{result['matmul_peak_flops_per_second'] / 1e9:.0f} GFLOP/s"),
        ("share of the peak", f"{result['fraction_of_peak']:.1%}"),
    ]
    title = "{model}: prompt {prompt_length}, batch {batch}, encoder {encoder_length}, decoder "
    title += "{decoder_length}, float32, {steps} steps"
    return "\n".join(
        [title.format(**result), *(f"  {name:<20}{value:>14}" for name, value in rows)]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, to try the benchmark")
    parser.add_argument("--steps", type=int, default=15, help="steps to time")
    parser.add_argument("--unroll", type=int, default=0, help="layers a scan step holds; 0: all")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)

    setting = QUICK if options.quick else FULL
    config = dataclasses.replace(setting.config, unroll=options.unroll)
    result = measure(
        dataclasses.replace(setting, config=config),
        steps=options.steps,
        peak_size=256 if options.quick else 2048,
    )
    print(table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
