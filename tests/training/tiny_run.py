"""A whole run of a few dozen steps, small enough to be started again and again.

    python tiny_run.py FOLDER SECONDS_PER_STEP

A soft prompt of two vectors steers a frozen one-layer network with dropout, in place of a T5,
whose compilation would take most of the time. The score is a loss on fixed batches, so it is as
exact as the prompt.
"""

import dataclasses
import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.training.keys import stream_key
from prompt_tuning.training.loop import train_loop
from prompt_tuning.training.losses import cross_entropy
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.options import TrainOptions
from prompt_tuning.training.run import Evaluation, Member, TrainResult
from prompt_tuning.training.run_folder import RunFolder

VOCAB, EMBED = 48, 16
OPTIONS = TrainOptions(train_steps=40, seed=3, log_every=4, eval_every=10, checkpoint_every=5)


def make_batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([OPTIONS.seed, step])
    inputs = rng.integers(2, VOCAB, size=(4, 6), dtype=np.int32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": inputs[:, :2],
        "decoder_loss_weights": np.ones((4, 2), np.float32),
    }


def make_frozen() -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "embedding": jnp.asarray(rng.normal(size=(VOCAB, EMBED)), jnp.float32),
        "output": jnp.asarray(rng.normal(size=(EMBED, VOCAB)), jnp.float32),
    }


def loss_fn(trained, frozen, batch, key, *, keep: float = 0.9):
    targets = batch["decoder_target_tokens"]
    hidden = jnp.tanh(frozen["embedding"][targets] @ jnp.diag(trained["prompt"][0]))
    hidden = hidden + trained["prompt"][1]
    if keep < 1:
        hidden *= jax.random.bernoulli(key, keep, hidden.shape) / keep
    return cross_entropy(hidden @ frozen["output"], targets, batch["decoder_loss_weights"])


def score(trained) -> float:
    exact = jax.jit(loss_fn, static_argnames="keep")
    return -float(exact(trained, make_frozen(), make_batch(900), jax.random.key(0), keep=1.0)[0])


def run(folder_path, seconds_per_step: float = 0.0, keep: float = 0.9, **changes) -> TrainResult:
    """Runs in the folder; `changes` replace fields of the member and arguments of `train`."""
    folder = RunFolder.open(folder_path, settings={"run": "tiny"}, config_text="# tiny\n")

    def batches(step):
        time.sleep(seconds_per_step)
        return make_batch(step)

    def evaluate(trained):
        time.sleep(seconds_per_step)
        value = score(trained)
        return Evaluation(metrics={"nats": value}, score=value, predictions=[{"nats": value}])

    def save_best(trained, step, score):
        metadata = PromptMetadata(model="tiny", step=step, score=score)
        save_prompt(folder.path / "prompt_best", trained["prompt"], metadata)

    arguments = {
        "options": OPTIONS,
        "loss_fn": functools.partial(loss_fn, keep=keep),
        "optimizer": adafactor(0.1),
        "trained": {"prompt": jax.random.normal(stream_key(OPTIONS.seed, "init"), (2, EMBED))},
        "frozen": make_frozen(),
        "batches": batches,
        "evaluate": evaluate,
        "save_best": save_best,
        "facts": {"task": "copy"},
        "monitoring": None,
        **changes,
    }
    fields = {field.name for field in dataclasses.fields(Member)}
    member = Member(folder=folder, **{k: v for k, v in arguments.items() if k in fields})
    evaluate = arguments["evaluate"]
    (result,) = train_loop(
        [member],
        frozen=arguments["frozen"],
        evaluate=None if evaluate is None else lambda members, trained: [evaluate(*trained)],
        monitoring=arguments["monitoring"],
    )
    return result


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]))
