"""Pre-trains one of TinyWorld's models: span corruption, then LM adaptation in two parts.

    python experiments/tinyworld/pretrain.py --size small

Documents are made as they are needed, so none is seen twice. The learning curve goes to
`results/<size>.jsonl` with zero-shot probes: the share of exercises of each sort, told of facts
that the corpus holds back and in the corpus's own phrasing, that the model answers exactly. The
weights go to the package's assets, with a card.
"""

import argparse
import collections
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sentencepiece
from tqdm import tqdm

from prompt_tuning.checkpoints.weights import load_weights, save_weights
from prompt_tuning.data.pretraining import lm_adaptation, span_corruption
from prompt_tuning.data.tinyworld import corpus
from prompt_tuning.data.tinyworld.world import World
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.layers import count_parameters
from prompt_tuning.models.t5 import T5, init_params
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.optimizers import adamw, cosine_decay
from prompt_tuning.training.step import TrainState, make_train_step, model_loss_fn

ASSETS = Path(__file__).parents[2] / "prompt_tuning" / "assets" / "tinyworld"
RESULTS = Path(__file__).parent / "results"
NUM_SENTINELS = 100
CHUNK_DOCUMENTS = 16_384
TOKENS_PER_BATCH = 1536
BUCKETS = ((12, 8), (16, 8), (24, 12), (32, 12), (48, 16), (80, 40))
"""(encoder, decoder) lengths in tokens; a document goes to the first that holds it."""

PHASES = {
    "span_corruption": {"exercises": 0.4},
    "word_knowledge": {"exercises": 1.0, "among": corpus.WORD_KNOWLEDGE},
    "lm_adaptation": {"exercises": 0.85},
}
"""What each phase reads, as `corpus.document` takes it; the last two are LM adaptation."""


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
        unroll=0,
    )


SIZES = {
    "mini": size_config("mini", 48, 3, 2),
    "small": size_config("small", 96, 4, 3),
    "base": size_config("base", 128, 4, 4),
    "large": size_config("large", 192, 6, 5),
    "xl": size_config("xl", 320, 10, 6),
}


def examples(
    phase: str, vocabulary: sentencepiece.SentencePieceProcessor, vocab_size: int, chunk: int
) -> list[tuple[list[int], list[int]]]:
    """Returns a chunk's (inputs, targets), a pure function of the phase and the chunk's number."""
    world = World("corpus", seed=chunk)
    rng = np.random.default_rng(chunk)
    documents = [corpus.document(world, **PHASES[phase]) for _ in range(CHUNK_DOCUMENTS)]
    if phase != "span_corruption":
        contexts = vocabulary.encode([document.context for document in documents])
        continuations = vocabulary.encode([document.continuation for document in documents])
        return list(itertools.starmap(lm_adaptation, zip(contexts, continuations, strict=True)))
    texts = vocabulary.encode([document.text for document in documents])
    return [span_corruption(ids, rng, vocab_size=vocab_size) for ids in texts]


def pad(rows: list[list[int]], length: int) -> np.ndarray:
    """Returns int32 [batch, length], padded with zeros."""
    padded = np.zeros((len(rows), length), np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def make_batch(pairs: list[tuple[list[int], list[int]]], bucket: tuple[int, int]) -> dict:
    """Returns the pairs under SeqIO's names, padded to the bucket's lengths."""
    targets = pad([target for _, target in pairs], bucket[1])
    return {
        "encoder_input_tokens": pad([inputs for inputs, _ in pairs], bucket[0]),
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets != 0).astype(np.float32),
    }


def batches(phase: str, vocabulary, vocab_size: int, first_chunk: int) -> Iterator[dict]:
    """Yields batches of about TOKENS_PER_BATCH tokens, each of one bucket, in random order."""
    for chunk in itertools.count(first_chunk):
        sorted_into = collections.defaultdict(list)
        for inputs, targets in examples(phase, vocabulary, vocab_size, chunk):
            bucket = next(b for b in BUCKETS if len(inputs) <= b[0] and len(targets) <= b[1])
            sorted_into[bucket].append((inputs, targets))
        ready = []
        for bucket, pairs in sorted_into.items():
            size = TOKENS_PER_BATCH // sum(bucket)
            ready += [(bucket, pairs[i : i + size]) for i in range(0, len(pairs) - size + 1, size)]
        np.random.default_rng(chunk).shuffle(ready)
        for bucket, pairs in ready:
            yield make_batch(pairs, bucket)


def make_probe(model: T5, vocabulary, count: int = 256):
    """Returns a function from weights to {exercise: share answered exactly}."""
    bucket = BUCKETS[-1]
    world = World("validation", seed=0)
    probes = {}
    for exercise in dict.fromkeys(corpus.EXERCISES):
        documents = [exercise(world) for _ in range(count)]
        pairs = [
            lm_adaptation(vocabulary.encode(d.context), vocabulary.encode(d.continuation))
            for d in documents
        ]
        probes[exercise.__name__] = make_batch(pairs, bucket)

    @jax.jit
    def exact(params, batch):
        # Greedy decoding gives the answer exactly if and only if each of its tokens is the
        # likeliest after the ones before it.
        predicted = jnp.argmax(model.apply({"params": params}, batch), axis=-1)
        right = (predicted == batch["decoder_target_tokens"]) | (batch["decoder_loss_weights"] == 0)
        return jnp.mean(jnp.all(right, axis=-1))

    return lambda params: {name: float(exact(params, batch)) for name, batch in probes.items()}


def phase_at(phases: list[tuple[str, int]], step: int) -> str:
    """Returns the phase that a step, counted from 1, belongs to."""
    ends = itertools.accumulate(steps for _, steps in phases)
    return next(phase for (phase, _), end in zip(phases, ends, strict=True) if step <= end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--span_corruption_steps", type=int, default=2_000)
    parser.add_argument("--word_knowledge_steps", type=int, default=3_000)
    parser.add_argument("--lm_adaptation_steps", type=int, default=12_000)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--embedding_stddev", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--probe_every", type=int, default=500, help="steps")
    parser.add_argument("--start_from", type=Path, help="weights to go on from")
    parser.add_argument("--output", type=Path, help="a folder; default: the package's assets")
    args = parser.parse_args()

    config = SIZES[args.size]
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(ASSETS / "tinyworld.model"))
    assert vocabulary.vocab_size() + NUM_SENTINELS == config.vocab_size
    model = T5(config)
    phases = [(phase, getattr(args, f"{phase}_steps")) for phase in PHASES]
    total = sum(steps for _, steps in phases)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        adamw(
            cosine_decay(args.learning_rate, total, warmup_steps=400, final_fraction=0.02), b2=0.98
        ),
    )
    if args.start_from:
        _, params, earlier = load_weights(args.start_from, "float32")
        stages = json.loads(earlier["stages"])
    else:
        stages = []
        params = init_params(
            config, jax.random.key(args.seed), embedding_stddev=args.embedding_stddev
        )
    stages.append(
        {
            "command": " ".join(("pretrain.py", *sys.argv[1:])),
            "steps": {phase: steps for phase, steps in phases if steps},
            "tokens_per_batch": TOKENS_PER_BATCH,
            "remark": "",
        }
    )
    state = TrainState.create(params, optimizer)
    step_fn = make_train_step(model_loss_fn(model, LossOptions(z_loss=1e-4)), optimizer)
    probe = make_probe(model, vocabulary)
    output = (args.output or ASSETS) / f"{config.name}.safetensors"
    results = args.output or RESULTS
    results.mkdir(parents=True, exist_ok=True)
    curve = (results / f"{args.size}.jsonl").open("w")

    stream = itertools.chain.from_iterable(
        itertools.islice(
            batches(phase, vocabulary, config.vocab_size, 1_000_000 * (10 * args.seed + number)),
            steps,
        )
        for number, (phase, steps) in enumerate(phases)
    )
    key = jax.random.key(args.seed)
    started = time.time()
    losses = []
    progress = tqdm(stream, total=total, desc=config.name, unit="step", mininterval=5)
    for step, batch in enumerate(progress, start=1):
        state, metrics = step_fn(state, None, batch, key)
        losses.append(metrics["loss"])
        if step % args.probe_every and step != total:
            continue
        row = {
            "step": step,
            "phase": phase_at(phases, step),
            "seconds": round(time.time() - started),
            "loss": round(float(np.mean(jax.device_get(losses))), 4),
            **{name: round(share, 3) for name, share in probe(state.trained).items()},
        }
        losses = []
        curve.write(json.dumps(row) + "\n")
        curve.flush()
        progress.write(json.dumps(row))
        metadata = {"vocabulary": "tinyworld.model", "stages": json.dumps(stages)}
        save_weights(output, state.trained, config, metadata)
    print(f"{count_parameters(state.trained):,} parameters in {output}")


if __name__ == "__main__":
    main()
