"""Measures the speedup of training many prompts together, and its limit.

    python benchmarks/population.py [--quick] [--rounds N]

The setting is that of `step.py`: T5 1.1 Small with random weights, 100-token prompts, batch 8,
encoder 128, decoder 8, float32, Adafactor. For K = 1, 2, 4, 8 and 16 members it measures

- prompt-steps per second: the steps of all members side by side, in one program,
- the same for members that take turns, with a population's program of one member,
- the same for K separate runs, one after another on the same device, with a single run's program,
- the ratios of the first two to the last, each round timing one right after the other, so that a
  busy machine slows all,
- FLOPs of the population's program, as XLA counts them, against K times the fewest that one step
  can do with (`step.minimum_flops`),
- the physical limit of prompt-steps per second: the rate of plain matrix products, timed in the
  same run, over those fewest FLOPs.

Separate runs would also need K copies of the frozen weights or load them K times, and compile K
times; this is not counted. `population.side_by_side` chooses between the first two. The numbers are
written to benchmarks/results/population.json.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import step as single

from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.side_by_side import make_side_by_side_step, stack_batches
from prompt_tuning.training.step import (
    ProgramKey,
    TrainState,
    make_train_step,
    prompt_loss_fn,
)

RESULTS = Path(__file__).parent / "results" / "population.json"
MEMBERS = (1, 2, 4, 8, 16)


class Population:
    """The step of many members, compiled, and their states.

    Side by side it is one program; in turns it is a single run's, with the learning rate as an
    argument.
    """

    def __init__(
        self, setting: single.Setting, members: int, frozen, batch, *, side_by_side: bool = True
    ):
        config = setting.config
        method = SoftPrompt(length=setting.prompt, embed_dim=config.embed_dim)
        optimizer = adafactor(0.3)
        keys = jax.random.split(jax.random.key(1), members)
        states = [TrainState.create(method.init(key, batch), optimizer) for key in keys]
        model = T5(config, Compute(unroll=0))
        shared = ProgramKey.of(prompt_loss_fn(model, method, LossOptions()), optimizer)
        rates = np.full(members, 0.3, np.float32)
        if side_by_side:
            self.states = tuple(states)
            step = make_side_by_side_step([shared] * members)
            batches = jax.device_put(stack_batches([batch] * members))
            self._arguments = (frozen, batches, jax.random.key_data(keys), rates)
        else:
            (self.states,) = states
            step = make_train_step(shared.loss_fn, shared.optimizer)
            self._arguments = (frozen, jax.device_put(batch), keys[0], rates[0])
        self._step = step.lower(self.states, *self._arguments).compile()

    @property
    def flops(self) -> float:
        """FLOPs of a step of all members, as XLA counts them."""
        return self._step.cost_analysis()["flops"]

    def make_step(self) -> float:
        """Runs a step of all members and returns its seconds."""
        start = time.perf_counter()
        self.states, metrics = self._step(self.states, *self._arguments)
        jax.block_until_ready((self.states, metrics))
        seconds = time.perf_counter() - start
        if not np.isfinite(metrics["loss"]).all():
            raise RuntimeError("The benchmark's loss isn't finite; its times mean nothing.")
        return seconds


class Alone:
    """The step of a single run, on random weights and tokens."""

    def __init__(self, setting: single.Setting):
        config = setting.config
        numbers = np.random.default_rng(0)

        def tokens(length: int) -> np.ndarray:
            return numbers.integers(2, config.vocab_size, (setting.batch, length), np.int32)

        self.frozen = init_params(config, jax.random.key(0))
        self.batch = {
            "encoder_input_tokens": tokens(setting.source),
            "decoder_input_tokens": tokens(setting.target),
            "decoder_target_tokens": tokens(setting.target),
            "decoder_loss_weights": np.ones((setting.batch, setting.target), np.float32),
        }
        method = SoftPrompt(length=setting.prompt, embed_dim=config.embed_dim)
        optimizer = adafactor(0.3)
        trained = method.init(jax.random.key(1), self.batch)
        self._state = TrainState.create(trained, optimizer)
        loss_fn = prompt_loss_fn(T5(config, Compute(unroll=0)), method, LossOptions())
        self._step = make_train_step(loss_fn, optimizer)
        self._key = jax.random.key(2)

    def make_step(self) -> float:
        """Runs a step and returns its seconds."""
        start = time.perf_counter()
        self._state, metrics = self._step(self._state, self.frozen, self.batch, self._key)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - start


def measure(
    setting: single.Setting, members: tuple[int, ...], *, rounds: int, peak_size: int
) -> dict[str, object]:
    """Returns everything this benchmark reports; the peak is the best of before and after."""
    peak = single.matmul_peak(peak_size, "float32")
    alone = Alone(setting)
    alone.make_step()
    minimum = single.minimum_flops(setting)
    rows = []
    turns = Population(setting, 1, alone.frozen, alone.batch, side_by_side=False)
    turns.make_step()
    for count in members:
        started = time.perf_counter()
        population = Population(setting, count, alone.frozen, alone.batch)
        compiled = time.perf_counter() - started
        population.make_step()
        together, in_turns, separate = [], [], []
        for turn in range(rounds):
            together.append(population.make_step())
            in_turns.append(sum(turns.make_step() for _ in range(count)))
            separate.append(sum(alone.make_step() for _ in range(count)))
            print(
                f"K = {count:2}, round {turn + 1} of {rounds}: side by side {together[-1]:.3f} "
                f"s, in turns {in_turns[-1]:.3f} s, separate {separate[-1]:.3f} s",
                file=sys.stderr,
                flush=True,
            )
        rows.append(
            {
                "members": count,
                "prompt_steps_per_second": count / statistics.median(together),
                "in_turns_prompt_steps_per_second": count / statistics.median(in_turns),
                "separate_prompt_steps_per_second": count / statistics.median(separate),
                "ratio": _speedup(together, separate),
                "in_turns_ratio": _speedup(in_turns, separate),
                "xla_over_minimum": population.flops / (count * minimum),
                "compile_seconds": compiled,
            }
        )
        del population
    peak = max(peak, single.matmul_peak(peak_size, "float32"))
    for row in rows:
        row["fraction_of_limit"] = row["prompt_steps_per_second"] * minimum / peak
    return {
        "model": setting.config.name,
        "batch": setting.batch,
        "prompt_length": setting.prompt,
        "encoder_length": setting.source,
        "decoder_length": setting.target,
        "rounds": rounds,
        "rows": rows,
        "minimum_flops_per_prompt_step": minimum,
        "matmul_peak_flops_per_second": peak,
        "limit_prompt_steps_per_second": peak / minimum,
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _speedup(ours: list[float], theirs: list[float]) -> float:
    """Returns the median speedup over the rounds."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def table(result: dict) -> str:
    """Returns the result for a reader."""
    title = "{model}: prompt {prompt_length}, batch {batch}, encoder {encoder_length}, decoder "
    title += "{decoder_length}, float32, median of {rounds} rounds; prompt-steps a second"
    lines = [
        title.format(**result),
        "   K   together   in turns   separate   ratio   in turns   of the limit   XLA / minimum"
        "   compiling",
    ]
    row_text = (
        "  {members:2}  {prompt_steps_per_second:9.2f}  {in_turns_prompt_steps_per_second:9.2f}  "
        "{separate_prompt_steps_per_second:9.2f}  {ratio:6.2f}   {in_turns_ratio:8.2f}   "
        "{fraction_of_limit:12.1%}   {xla_over_minimum:13.3f}   "
        "{compile_seconds:7.1f} s"
    )
    lines += [row_text.format(**row) for row in result["rows"]]
    lines.append(
        f"  limit: {result['limit_prompt_steps_per_second']:.2f} by this run's matrix products "
        f"({result['matmul_peak_flops_per_second'] / 1e9:.0f} GFLOP/s)"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model and fewer members")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to time")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    result = measure(
        single.QUICK if options.quick else single.FULL,
        (1, 4) if options.quick else MEMBERS,
        rounds=options.rounds,
        peak_size=256 if options.quick else 2048,
    )
    print(table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
