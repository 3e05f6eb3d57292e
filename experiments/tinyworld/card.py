"""Writes the card of a shipped model: what it is, how it was made, what it can do.

    python experiments/tinyworld/card.py small

Numbers are read from the weights' own metadata and from the learning curve in `results/`.
"""

import argparse
import json
from pathlib import Path

from prompt_tuning.checkpoints.weights import load_weights
from prompt_tuning.models.layers import count_parameters

ASSETS = Path(__file__).parents[2] / "prompt_tuning" / "assets" / "tinyworld"
RESULTS = Path(__file__).parent / "results"

PHASE_NAMES = {
    "span_corruption": "span corruption",
    "word_knowledge": "LM adaptation on word knowledge",
    "lm_adaptation": "LM adaptation",
}

CARD = """\
# {name}

A T5 1.1 of {parameters:,} parameters, pre-trained on the generated corpus of TinyWorld
(`prompt_tuning/data/tinyworld/`), for experiments with prompts that take minutes on two CPU
cores. It knows TinyWorld's few hundred words and nothing else.

| | |
|---|---|
| width, heads, feed-forward | {embed_dim}, {num_heads} of {head_dim}, {mlp_dim} |
| layers | {num_encoder_layers} encoder, {num_decoder_layers} decoder |
| vocabulary | {vocab_size:,} rows: `tinyworld.model`, 100 sentinels, padding |
| stored as | {dtype} |

## How it was made

{stages}

No document repeats, none tells a fact of a task's training, development or test split, and none
has a task's format. The whole learning curve is `experiments/tinyworld/results/{size}.jsonl`.

## What it can do

Exercises of the corpus, in the corpus's own phrasing, on facts that the corpus holds back:
share answered exactly, without any prompt, at the end of pre-training. Where there are two
answers, 0.5 is chance; `ask_*` tell one to three facts (`ask_several` two to four, all to be
answered).

| exercise | exact |
|---|---|
{probes}

Apache 2.0, as the project. There is no text of people in it.
"""


def describe(metadata: dict[str, str]) -> str:
    """Returns the stages that the weights' metadata tells of, as a list."""
    stages = json.loads(metadata["stages"])
    return "\n".join(
        f"{number}. `{stage['command']}`: "
        + ", ".join(f"{n:,} steps of {PHASE_NAMES[phase]}" for phase, n in stage["steps"].items())
        + f", about {stage['tokens_per_batch']:,} tokens each{stage['remark']}."
        for number, stage in enumerate(stages, start=1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size")
    size = parser.parse_args().size
    config, params, metadata = load_weights(ASSETS / f"tinyworld_{size}.safetensors")
    last = json.loads((RESULTS / f"{size}.jsonl").read_text().splitlines()[-1])
    known = ("stage", "step", "phase", "seconds", "loss")
    probes = "\n".join(f"| {name} | {share} |" for name, share in last.items() if name not in known)
    card = CARD.format(
        size=size,
        parameters=count_parameters(params),
        dtype=config.param_dtype,
        stages=describe(metadata),
        probes=probes,
        **config.to_json(),
    )
    (ASSETS / f"tinyworld_{size}.md").write_text(card)


if __name__ == "__main__":
    main()
