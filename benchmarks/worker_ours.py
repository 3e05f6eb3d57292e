"""Our worker process in the benchmarks against PEFT; see `contenders.py`.

Reads a line of JSON that sets it up, then lines with pieces of work; answers each with a line.

    {"task": "step", "config": {...}, "prompt": 100, "target": 8}
    {"pieces": [{"lengths": [90, 128, 80], "padded": 128}, ...]}     ->  {"seconds": [...], ...}

A piece is a batch: the lengths of its inputs in tokens, and their padded length. The task is
"step", a training step (in two microbatches, if `microbatches` is 2); "decode", greedy decoding of
`target` tokens; or "rank", the log-likelihoods of `labels` labels of `target` tokens.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.host_memory import return_memory_after_compiling
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step, prompt_loss_fn


def peak_bytes() -> int:
    """Returns this process's peak resident memory."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def tokens(config: T5Config, lengths: list[int], padded: int, seed: int) -> np.ndarray:
    """Returns random inputs of these lengths, padded."""
    numbers = np.random.default_rng(seed)
    rows = numbers.integers(2, min(config.vocab_size, 32000), (len(lengths), padded), np.int32)
    return np.where(np.arange(padded) < np.array(lengths)[:, None], rows, 0).astype(np.int32)


class Worker:
    """A model with random weights, and the work that `setup` names."""

    def __init__(self, setup: dict[str, Any]):
        # A random model mustn't end its answers early: the end is the last row of the table, which
        # it generates once in tens of thousands of tokens.
        last = setup["config"]["vocab_size"] - 1
        config = T5Config.from_json({**setup["config"], "eos_id": last})
        self.config, self.target = config, setup["target"]
        self.model = T5(config, Compute(**setup["compute"]))
        self.frozen = init_params(config, jax.random.key(0))
        prompt = setup["prompt"]
        self.injection = Injection(
            encoder_prompt=jax.random.normal(jax.random.key(1), (1, prompt, config.embed_dim))
        )
        if setup["task"] == "step":
            method = SoftPrompt(length=prompt, embed_dim=config.embed_dim)
            optimizer = adafactor(0.3)
            loss_fn = prompt_loss_fn(self.model, method, LossOptions())
            self.train_step = make_train_step(loss_fn, optimizer, setup.get("microbatches", 1))
            first = self.batch({"lengths": [1], "padded": 8})
            self.state = TrainState.create(method.init(jax.random.key(2), first), optimizer)
            self.key = jax.random.key(3)
            self.work = self.step
        elif setup["task"] == "decode":
            self.options = DecodingOptions(max_length=self.target)
            self.work = self.decode
        else:
            self.labels = jnp.asarray(
                tokens(config, [self.target] * setup["labels"], self.target, 1)
            )
            self.score = jax.jit(
                lambda frozen, inputs, injection, labels: label_log_likelihoods(
                    self.model, frozen, inputs, injection, labels
                )
            )
            self.work = self.rank

    def batch(self, piece: dict[str, Any]) -> dict[str, np.ndarray]:
        rows, target = len(piece["lengths"]), self.target
        return {
            "encoder_input_tokens": tokens(self.config, piece["lengths"], piece["padded"], 0),
            "decoder_input_tokens": tokens(self.config, [target] * rows, target, 1),
            "decoder_target_tokens": tokens(self.config, [target] * rows, target, 2),
            "decoder_loss_weights": np.ones((rows, target), np.float32),
        }

    def step(self, piece: dict[str, Any]) -> Any:
        self.state, metrics = self.train_step(self.state, self.frozen, self.batch(piece), self.key)
        if not np.isfinite(metrics["loss"]):
            raise SystemExit("The loss isn't finite; its times mean nothing.")
        return self.state

    def decode(self, piece: dict[str, Any]) -> Any:
        inputs = self.batch(piece)["encoder_input_tokens"]
        return generate(self.model, self.frozen, inputs, self.injection, self.options)

    def rank(self, piece: dict[str, Any]) -> Any:
        inputs = self.batch(piece)["encoder_input_tokens"]
        return self.score(self.frozen, inputs, self.injection, self.labels)


def main() -> None:
    return_memory_after_compiling()
    worker = Worker(json.loads(sys.stdin.readline()))
    print(json.dumps({"versions": {"jax": jax.__version__}}), flush=True)
    for line in sys.stdin:
        seconds = []
        for piece in json.loads(line)["pieces"]:
            start = time.perf_counter()
            jax.block_until_ready(worker.work(piece))
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
