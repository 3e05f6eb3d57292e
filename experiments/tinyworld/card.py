"""Writes the card of a shipped model: what it is, how it was made, what it can do.

    python experiments/tinyworld/card.py small

Numbers are read from the weights' own metadata and from the learning curve in `results/`.
"""

import argparse
import itertools
import json
import re
from pathlib import Path

import corpus

from prompt_tuning.checkpoints.frozen.weights import load_weights
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.parameters import count_parameters

ASSETS = Path(__file__).parents[2] / "prompt_tuning" / "assets" / "tinyworld"
RESULTS = Path(__file__).parent / "results"

CARD = """\
# {name}

{architecture} of {parameters:,} parameters, pre-trained on the generated corpus of TinyWorld
(`prompt_tuning/tinyworld/`), for experiments with prompts that take minutes on two CPU
cores. It knows TinyWorld's few hundred words and nothing else.

| | |
|---|---|
| width, heads, feed-forward | {embed_dim}, {num_heads} of {head_dim}, {mlp_dim} |
| layers | {layers} |
| vocabulary | {vocab_size:,} rows: `tinyworld.model`, 100 sentinels, padding |
| stored as | {dtype} |

## How it was made

{commands}

{steps} of about {tokens:,} tokens, in {minutes} minutes on one CPU core that other work shared.
{phases_are}

| phase | steps | mastered |
|---|---|---|
{phases}

No document repeats, none tells a fact of a task's training, development or test split, and none
has a task's format. The whole learning curve is `experiments/tinyworld/results/{size}.jsonl`.

## What it can do

Exercises of the corpus, in the corpus's own phrasing, on facts that the corpus holds back:
share answered exactly, without any prompt, at the end of pre-training. `list_pairs` can't be
foreseen; by chance `find_*`, `verify_*` (but `verify_several`, of two to four claims), `choose_*`
and `compare_senses` are 0.5 or less.

| exercise | exact |
|---|---|
{probes}

Apache 2.0, as the project. There is no text of people in it.
"""


def describe(rows: list[dict], command: str, mastery: float) -> dict[str, object]:
    """Returns the card's description of a run, from its learning curve."""
    ends = [list(phase)[-1] for _, phase in itertools.groupby(rows, lambda row: row["phase"])]
    lessons = {lesson.name: lesson.goals for lesson in corpus.CURRICULUM}
    phases, before = [], 0
    for end in ends:
        phase, step = end["phase"], end["step"]
        shares = [end[goal.__name__] for goal in lessons.get(phase, ())]
        mastered = ("yes" if min(shares) >= mastery else "no") if shares else ""
        phases.append(f"| {phase} | {step - before:,} | {mastered} |")
        before = step
    known = ("step", "phase", "seconds", "loss")
    probes = [f"| {name} | {share} |" for name, share in rows[-1].items() if name not in known]
    phases_are = (
        "A lesson ends when its exercises are answered with the wanted share, or when its steps "
        "run out:"
    )
    size = re.search(r"--size (\w+)", command)
    if (small := re.search(r"--grow_from (\w+)", command)) and not (size and size[1] == small[1]):
        phases_are = (
            f"It was grown from `tinyworld_{small[1]}` (`grow.py`), which had been pre-trained, "
            "and read:"
        )
    return {
        "commands": "\n".join(
            f"    python experiments/tinyworld/{line}" for line in command.splitlines()
        ),
        "phases_are": phases_are,
        "steps": f"{before:,} steps",
        "minutes": round(rows[-1]["seconds"] / 60),
        "phases": "\n".join(phases),
        "probes": "\n".join(probes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size")
    size = parser.parse_args().size
    config, params, metadata = load_weights(ASSETS / f"tinyworld_{size}.safetensors")
    rows = [json.loads(line) for line in (RESULTS / f"{size}.jsonl").read_text().splitlines()]
    sizes = config.to_json()
    if isinstance(config, T5Config):
        architecture = "A T5 1.1"
        layers = f"{config.num_encoder_layers} encoder, {config.num_decoder_layers} decoder"
    else:
        assert isinstance(config, DecoderOnlyConfig)
        architecture = "A decoder-only model with Qwen 3's layers,"
        layers = str(config.decoder.num_layers)
        sizes |= sizes.pop("decoder")
    card = CARD.format(
        size=size,
        architecture=architecture,
        layers=layers,
        parameters=count_parameters(params),
        dtype=params["token_embedder"]["embedding"].dtype,
        tokens=int(metadata["tokens_per_batch"]),
        **describe(rows, metadata["command"], float(metadata["mastery"])),
        **sizes,
    )
    (ASSETS / f"tinyworld_{size}.md").write_text(card)


if __name__ == "__main__":
    main()
