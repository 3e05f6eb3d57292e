"""Pre-trains one of TinyWorld's models: span corruption, then LM adaptation lesson by lesson.

    python experiments/tinyworld/pretrain.py --size small
    python experiments/tinyworld/pretrain.py --size decoder
    python experiments/tinyworld/pretrain.py --size base --grow_from small

Documents are generated on the fly, so none is repeated. A lesson of the curriculum
(`corpus.py`) ends when the model has mastered it, or after `--lesson_steps`; then it reads the
whole mixture. The decoder-only model predicts the next words of stories instead of corrupted
spans. A model grown from a smaller one (`grow.py`) skips the lessons, but for those of
`--lessons`. A model grown from its own size is continued; `--seed` gives it other documents.
Evaluation is zero-shot: the share of exercises of each kind, about held-out facts and in the
corpus's own phrasing, that the model answers exactly.
The learning curve is written to `results/<size>.jsonl`, the weights to the package's assets;
`card.py` writes their card.
"""

import argparse
import collections
import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import corpus
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sentencepiece
from grow import grow
from stories import Document
from tqdm import tqdm

from prompt_tuning.checkpoints.frozen.weights import load_weights, save_weights
from prompt_tuning.data.pretraining import lm_adaptation, span_corruption
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.parameters import ModelConfig, count_parameters
from prompt_tuning.models.stack import Stack
from prompt_tuning.tinyworld.world import World
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import TrainState, make_train_step, model_loss_fn

ASSETS = Path(__file__).parents[2] / "prompt_tuning" / "assets" / "tinyworld"
RESULTS = Path(__file__).parent / "results"
NUM_SENTINELS = 100
CHUNK_DOCUMENTS = 8_192
BUCKETS = ((16, 8), (24, 8), (24, 16), (40, 16), (56, 28), (88, 40), (1, 128))
"""(encoder, decoder) lengths in tokens; a document goes to the first that holds it."""

Pair = tuple[list[int], list[int]]
"""Token ids of an encoder's input and of its target."""


def size_config(name: str, embed: int, heads: int, layers: int) -> T5Config:
    return T5Config(
        name=f"tinyworld_{name}",
        vocab_size=1408,
        embed_dim=embed,
        num_heads=heads,
        head_dim=embed // heads,
        mlp_dim=2 * embed,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
    )


def decoder_config(name: str, embed: int, heads: int, layers: int) -> DecoderOnlyConfig:
    stack = Stack(
        embed_dim=embed,
        mlp_dim=2 * embed,
        num_heads=heads,
        num_kv_heads=heads // 2,
        head_dim=embed // heads,
        query_scalar=float(embed // heads),
        windows=(0,) * layers,
        rope_theta=1000.0,
        attention_softcap=0.0,
        activation_name="silu",
        unit_offset=False,
        post_norms=False,
        head_norms=True,
    )
    return DecoderOnlyConfig(
        name=f"tinyworld_{name}",
        kind="qwen3",
        vocab_size=1408,
        embed_dim=embed,
        decoder=stack,
        tie_embeddings=True,
        pad_id=0,
        eos_id=1,
    )


SIZES: dict[str, ModelConfig] = {
    "decoder": decoder_config("decoder", 96, 6, 4),
    "nano": size_config("nano", 32, 2, 2),
    "tiny": size_config("tiny", 48, 3, 2),
    "mini": size_config("mini", 64, 4, 3),
    "small": size_config("small", 96, 4, 3),
    "base": size_config("base", 128, 4, 4),
    "large": size_config("large", 192, 6, 5),
    "xl": size_config("xl", 320, 10, 6),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of pre-training.

    Attributes:
      steps: at most so many.
      write: makes a document.
      goals: the exercises whose mastery ends it; without any it is not ended early.
      decays: whether the learning rate falls, linearly, to 2 % of its value.
    """

    name: str
    steps: int
    write: Callable[[World], Document]
    goals: tuple[corpus.Writer, ...] = ()
    decays: bool = False

    def rate(self, step: int) -> float:
        """The factor of the learning rate at a step of the phase, from 1."""
        return 1.0 - 0.98 * step / self.steps if self.decays else 1.0


def examples(phase: Phase, encode: Callable, seed: int, vocab_size: int) -> Iterator[Pair]:
    """Yields a phase's examples without end: of LM adaptation, but for span corruption's own."""
    for chunk in itertools.count(seed):
        world = World("corpus", seed=chunk)
        documents = [phase.write(world) for _ in range(CHUNK_DOCUMENTS)]
        if phase.name == "span corruption":
            rng = np.random.default_rng(chunk)
            for ids in encode([document.text for document in documents]):
                yield span_corruption(ids, rng, vocab_size=vocab_size)
        elif phase.name == "next words":
            for ids in encode([document.text for document in documents]):
                yield lm_adaptation([], ids)
        else:
            contexts = encode([document.context for document in documents])
            continuations = encode([document.continuation for document in documents])
            yield from map(lm_adaptation, contexts, continuations)


def pad(rows: list[list[int]], length: int) -> np.ndarray:
    """Returns int32 [batch, length], padded with zeros."""
    padded = np.zeros((len(rows), length), np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def make_batch(pairs: list[Pair], bucket: tuple[int, int]) -> dict:
    """Returns the pairs under SeqIO's names, padded to the bucket's lengths."""
    targets = pad([target for _, target in pairs], bucket[1])
    return {
        "encoder_input_tokens": pad([inputs for inputs, _ in pairs], bucket[0]),
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets != 0).astype(np.float32),
    }


def batches(examples: Iterator[Pair], tokens: int) -> Iterator[dict]:
    """Yields batches of about `tokens` tokens, each as soon as a bucket has enough examples."""
    waiting = collections.defaultdict(list)
    for inputs, targets in examples:
        bucket = next(b for b in BUCKETS if len(inputs) <= b[0] and len(targets) <= b[1])
        waiting[bucket].append((inputs, targets))
        if len(waiting[bucket]) == tokens // sum(bucket):
            yield make_batch(waiting.pop(bucket), bucket)


def make_probe(model: FrozenModel, encode: Callable, count: int = 128):
    """Returns a function from weights and exercises to {exercise: share answered exactly}."""
    probes = {}
    for exercise in dict.fromkeys(corpus.EXERCISES):
        world = World("validation", seed=0)
        documents = [exercise(world) for _ in range(count)]
        contexts = encode([document.context for document in documents])
        continuations = encode([document.continuation for document in documents])
        pairs = list(map(lm_adaptation, contexts, continuations))
        longest = [max(map(len, sequences)) for sequences in zip(*pairs, strict=True)]
        bucket = next(b for b in BUCKETS if longest[0] <= b[0] and longest[1] <= b[1])
        probes[exercise] = make_batch(pairs, bucket)

    @jax.jit
    def exact(params, batch):
        # Greedy decoding gives the answer exactly if and only if each of its tokens is the
        # likeliest after the ones before it.
        predicted = jnp.argmax(model.apply({"params": params}, batch), axis=-1)
        right = (predicted == batch["decoder_target_tokens"]) | (batch["decoder_loss_weights"] == 0)
        return jnp.mean(jnp.all(right, axis=-1))

    return lambda params, exercises: {
        exercise.__name__: round(float(exact(params, probes[exercise])), 3)
        for exercise in dict.fromkeys(exercises)
    }


def save_in_bfloat16(
    path: Path, params: dict, config: ModelConfig, metadata: dict[str, str]
) -> None:
    save_weights(path, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), params), config, metadata)


def make_phases(args: argparse.Namespace) -> list[Phase]:
    lessons = [
        Phase(
            name=lesson.name,
            steps=args.lesson_steps,
            write=functools.partial(corpus.lesson_document, number=number),
            goals=lesson.goals,
        )
        for number, lesson in enumerate(corpus.CURRICULUM)
        if not args.grow_from or lesson.name in args.lessons
    ]
    stories = functools.partial(corpus.document, exercises=0.4)
    everything = functools.partial(corpus.document, exercises=0.85)
    mixture = Phase(name="mixture", steps=args.mixture_steps, write=everything, decays=True)
    if args.grow_from:
        return [*lessons, mixture]
    name = "next words" if args.size == "decoder" else "span corruption"
    first = Phase(name=name, steps=args.span_corruption_steps, write=stories)
    return [first, *lessons, mixture]


def first_params(args: argparse.Namespace, config: ModelConfig) -> dict:
    """Returns random weights, or a smaller model's, grown to the size."""
    params = init_params(
        config,
        jax.random.key(args.seed),
        relative_bias_stddev=None if args.size == "decoder" else args.relative_bias_stddev,
    )
    if not args.grow_from:
        return params
    small, trained, _ = load_weights(ASSETS / f"tinyworld_{args.grow_from}.safetensors")
    if args.grow_from == args.size:
        return jax.tree.map(lambda old, new: old.astype(new.dtype), trained, params)
    return grow(trained, small, params, config)


def earlier_run(args: argparse.Namespace) -> tuple[list[dict], list[str]]:
    """Returns the learning curve and the commands of the run that this one continues, if any."""
    if args.grow_from != args.size:
        return [], []
    lines = (RESULTS / f"{args.size}.jsonl").read_text().splitlines()
    _, _, metadata = load_weights(ASSETS / f"tinyworld_{args.size}.safetensors")
    return [json.loads(line) for line in lines], metadata["command"].splitlines()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--grow_from", choices=SIZES, help="a pre-trained size, at most this one")
    parser.add_argument("--lessons", nargs="*", default=(), help="of a model that is grown")
    parser.add_argument("--span_corruption_steps", type=int, default=1_000)
    parser.add_argument("--lesson_steps", type=int, default=2_500, help="at most, per lesson")
    parser.add_argument("--mixture_steps", type=int, default=4_000)
    parser.add_argument("--mastery", type=float, default=0.9, help="share that ends a lesson")
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--warmup_steps", type=int, default=400)
    parser.add_argument("--tokens_per_batch", type=int, default=2_048)
    parser.add_argument("--relative_bias_stddev", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--probe_every", type=int, default=250, help="steps")
    parser.add_argument("--keep_every", type=int, help="steps; keeps the weights as they were, too")
    parser.add_argument("--output", type=Path, help="a folder; default: the package's assets")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    config = SIZES[args.size]
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(ASSETS / "tinyworld.model"))
    assert vocabulary.vocab_size() + NUM_SENTINELS == config.vocab_size
    model = model_of(config, Compute(unroll=0))
    params = first_params(args, config)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.0, b2=0.98),
    )
    state = TrainState.create(params, optimizer)
    step_fn = make_train_step(model_loss_fn(model, LossOptions(z_loss=1e-4)), optimizer)
    probe = make_probe(model, vocabulary.encode)

    weights = (args.output or ASSETS) / f"{config.name}.safetensors"
    curve = (args.output or RESULTS) / f"{args.size}.jsonl"
    rows, commands = earlier_run(args)
    curve.parent.mkdir(parents=True, exist_ok=True)
    curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    metadata = {
        "vocabulary": "tinyworld.model",
        "command": "\n".join([*commands, " ".join(("pretrain.py", *sys.argv[1:]))]),
        "mastery": str(args.mastery),
        "tokens_per_batch": str(args.tokens_per_batch),
    }
    key = jax.random.key(args.seed)
    first = step = rows[-1]["step"] if rows else 0
    started = time.time() - (rows[-1]["seconds"] if rows else 0)
    for number, phase in enumerate(make_phases(args)):
        seed = 1_000_000 * (100 * args.seed + number)
        stream = examples(phase, vocabulary.encode, seed, config.vocab_size)
        progress = tqdm(
            itertools.islice(batches(stream, args.tokens_per_batch), phase.steps),
            total=phase.steps,
            desc=f"{config.name}: {phase.name}",
            unit="step",
            mininterval=10,
        )
        losses = []
        for steps, batch in enumerate(progress, start=1):
            step += 1
            rate = (
                args.learning_rate
                * min(1.0, (step - first) / args.warmup_steps)
                * phase.rate(steps)
            )
            state.opt_state[1].hyperparams["learning_rate"] = np.float32(rate)
            state, metrics = step_fn(state, None, batch, key)
            losses.append(metrics["loss"])
            if args.keep_every and step % args.keep_every == 0:
                kept = weights.with_stem(f"{weights.stem}_{step}")
                save_in_bfloat16(kept, state.trained, config, {**metadata, "step": str(step)})
            if steps % args.probe_every and steps != phase.steps:
                continue
            shares = probe(state.trained, phase.goals or corpus.EXERCISES)
            row = {
                "step": step,
                "phase": phase.name,
                "seconds": round(time.time() - started),
                "loss": round(float(np.mean(jax.device_get(losses))), 4),
                **shares,
            }
            losses = []
            with curve.open("a") as file:
                file.write(json.dumps(row) + "\n")
            progress.write(json.dumps(row))
            save_in_bfloat16(weights, state.trained, config, metadata)
            if phase.goals and min(shares.values()) >= args.mastery:
                break
    print(f"{count_parameters(state.trained):,} parameters in {weights}")


if __name__ == "__main__":
    main()
