"""Trains each method that produces a prompt on TinyWorld, to check that it learns.

    python experiments/methods/prompts.py                   all of them
    python experiments/methods/prompts.py residual_prompt   this one

It works like `train.py`, which trains the methods inside the layers. Mixed and multitask prompts
and SPoT start from prompts of other tasks, SOURCES, which are trained first; RTE, the target task,
is not among them.
"""

import argparse
import json
from pathlib import Path

from train import RESULTS, run

import prompt_tuning as pt
from prompt_tuning.data import mixtures

MODEL, TARGET = "tinyworld_small", "tinyworld_rte"
SOURCES = ("tinyworld_boolq", "tinyworld_cb")
MIXTURE = "tinyworld_sources"  # of SOURCES, which no shipped mixture is
LENGTH = 20
ARGUMENTS = {
    "task": TARGET,
    "steps": 200,
    "eval_every": 20,
    "checkpoint_every": 200,
    "patience": 3,
    "settings": {"data.num_lengths": 1},  # less to compile
}


def experiments(runs: Path) -> dict[str, tuple]:
    """Returns each run's method, optimizer and other arguments of `pt.train`, by name.

    Runs that others start from come before them.
    """
    sampled = {"initializer": pt.sampled_vocabulary()}
    # What others start from is trained to its end.
    longer = {"steps": 400, "checkpoint_every": 400, "patience": None}
    prompts = {task: runs / f"soft_prompt_{task}" for task in SOURCES}
    sources = [f"{prompts[task]}/prompt_best.safetensors" for task in SOURCES]
    multitask = runs / "multitask_prompt" / "adapter_best.safetensors"
    target = runs / "spot_target" / "prompt_best.safetensors"
    factors = {"down": 0.0167, "up": 0.0167}

    def soft_prompt(**options):
        return pt.soft_prompt(length=LENGTH, **{**sampled, **options})

    def p_tuning(encoder):
        start = pt.random_uniform()
        return pt.p_tuning(length=LENGTH, initializer=start, encoder=encoder)

    distilled = {"settings": {**ARGUMENTS["settings"], "train.teachers": sources}}
    return {
        **{
            folder.name: (soft_prompt(), None, {"task": task, **longer})
            for task, folder in prompts.items()
        },
        "soft_prompt": (soft_prompt(), None, {}),
        **{
            f"soft_prompt_{placement}": (soft_prompt(placement=placement), None, {})
            for placement in ("after", "around", "decoder", "encoder_and_decoder")
        },
        "soft_prompt_attention": (
            soft_prompt(attention=("input->prompt", "prompt->prompt;causal")),
            None,
            {},
        ),
        "smop": (pt.smop(length=5, **sampled), pt.adafactor(0.5), {}),
        "dept": (
            pt.dept(length=10, positions=64, rank=6, **sampled),
            pt.adamw(pt.linear_warmup(0.3, 20), weight_decay=1e-5, rate_factors=factors),
            {},
        ),
        "factored_prompt": (
            pt.factored_prompt(
                length=10, mixture_or_task=TARGET, parts=(("tinyworld", "rte"),), **sampled
            ),
            None,
            {},
        ),
        "p_tuning": (p_tuning("lstm"), pt.adamw(1e-3), {}),
        "p_tuning_mlp": (p_tuning("mlp"), pt.adamw(1e-3), {}),
        "residual_prompt": (
            pt.residual_prompt(length=LENGTH, **sampled),
            pt.adamw(0.3, weight_decay=1e-5),
            {},
        ),
        "mixed_prompt": (pt.mixed_prompt(sources=sources, **sampled), None, {}),
        "attention_mixed_prompt": (
            pt.attention_mixed_prompt(sources=sources, **sampled),
            None,
            {},
        ),
        "multitask_prompt": (
            pt.multitask_prompt(length=LENGTH, mixture_or_task=MIXTURE, **sampled),
            None,
            {"task": MIXTURE, **longer, **distilled},
        ),
        "multitask_prompt_adapted": (
            pt.adapted_multitask_prompt(source=str(multitask)),
            None,
            {},
        ),
        "spot_target": (soft_prompt(), None, {"steps": 5}),
        "spot": (
            soft_prompt(initializer=pt.most_similar(target=str(target), sources=sources)),
            None,
            {},
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of results; all of them if none is given")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"), help="their folders")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    mixtures.MIXTURES = {**mixtures.MIXTURES, MIXTURE: SOURCES}
    known = experiments(args.runs)
    for name in args.names or known:
        method, optimizer, changes = known[name]
        row = run(args.runs / name, MODEL, method, optimizer, {**ARGUMENTS, **changes})
        (RESULTS / f"{name}.json").write_text(json.dumps({"method": name, **row}, indent=1) + "\n")
        print(json.dumps({"method": name, **row}), flush=True)


if __name__ == "__main__":
    main()
