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

from prompt_tuning.data import mixtures

MODEL, TARGET = "tinyworld_small", "tinyworld_rte"
SOURCES = ("tinyworld_boolq", "tinyworld_cb")
MIXTURE = "tinyworld_sources"  # of SOURCES, which no shipped mixture is
SETTINGS = {
    "TRAIN_STEPS": 200,
    "PROMPT_LENGTH": 20,
    "train.eval_every": 20,
    "train.checkpoint_every": 200,
    "train.patience": 3,
    "train.tensorboard": False,
    "data.num_lengths": 1,  # less to compile
}


def experiments(runs: Path) -> dict[str, tuple[str, dict]]:
    """Returns each run's gin file and settings by name, those before which others must have run."""
    sampled, placed = "prompts/sampled_vocabulary", "methods/soft_prompt_placement"
    # What others start from is trained to its end.
    longer = {"TRAIN_STEPS": 400, "train.patience": None}
    prompts = {task: runs / f"soft_prompt_{task}" for task in SOURCES}
    sources = [f"{prompts[task]}/prompt_best.safetensors" for task in SOURCES]
    multitask = runs / "multitask_prompt" / "adapter_best.safetensors"
    target = runs / "spot_target" / "prompt_best.safetensors"
    return {
        **{
            folder.name: (sampled, {"MIXTURE_OR_TASK_NAME": task, **longer})
            for task, folder in prompts.items()
        },
        "soft_prompt": (sampled, {}),
        **{
            f"soft_prompt_{placement}": (placed, {"soft_prompt.placement": placement})
            for placement in ("after", "around", "decoder", "encoder_and_decoder")
        },
        "soft_prompt_attention": ("methods/soft_prompt_attention", {}),
        "smop": ("methods/smop", {"PROMPT_LENGTH": 5}),
        "factored_prompt": (
            "methods/factored_prompt",
            {"PARTS": (("tinyworld", "rte"),), "PROMPT_LENGTH": 10},
        ),
        "p_tuning": ("methods/p_tuning", {}),
        "p_tuning_mlp": ("methods/p_tuning", {"p_tuning.encoder": "mlp"}),
        "residual_prompt": ("methods/residual_prompt", {}),
        "dept": (
            "methods/dept",
            {
                "PROMPT_LENGTH": 10,
                "dept.positions": 64,
                "dept.rank": 6,
                "linear_warmup.warmup_steps": 20,
            },
        ),
        "mixed_prompt": ("methods/mixed_prompt", {"SOURCE_PROMPTS": sources}),
        "attention_mixed_prompt": ("methods/attention_mixed_prompt", {"SOURCE_PROMPTS": sources}),
        "multitask_prompt": (
            "methods/multitask_prompt",
            {"MIXTURE_OR_TASK_NAME": MIXTURE, "TEACHERS": sources, **longer},
        ),
        "multitask_prompt_adapted": (
            "methods/multitask_prompt_adapted",
            {"MULTITASK_PROMPT": str(multitask)},
        ),
        "spot_target": (sampled, {"TRAIN_STEPS": 5}),
        "spot": ("prompts/spot", {"SOURCE_PROMPTS": sources, "TARGET_PROMPT": str(target)}),
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
        file, changes = known[name]
        settings = {**SETTINGS, **changes}
        row = {"method": name, **run(args.runs / name, MODEL, TARGET, [file], settings)}
        (RESULTS / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
