"""Counts the trainable parameters of each method for each size of T5 1.1, and draws Figure 4.

python experiments/parameter_use/plot.py [--output experiments/parameter_use/results]

Nothing is trained: the methods' initial parameters are counted, with the settings in
configs/methods, as in `prompt-tuning methods`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.analysis.methods_table import MethodFacts, methods_table
from prompt_tuning.analysis.sweep_plots import plot_shares
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.recipes.scripts import output_of
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import write_table

DRAWN = {
    "soft_prompt": "prompt tuning",
    "deep_prompt": "P-tuning v2",
    "prefix": "prefix tuning, with its MLP",
    "lora": "LoRA",
    "ia3": "IA3",
    "adapter": "bottleneck adapters",
    "model_tuning": "model tuning",
}
"""The methods of the figure; the table has all."""


def main(argv: Sequence[str]) -> None:
    """Counts, writes the table and the figure."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    found = json.loads(output_of(["methods", "--all_sizes", "--json"]))
    facts = {name: [MethodFacts(**fact) for fact in of_model] for name, of_model in found.items()}
    sizes = {name: count_parameters(abstract_params(get_config(name))) for name in facts}
    rows = [
        {
            "method": fact.name,
            "model": model,
            "frozen_parameters": sizes[model],
            "trained_parameters": fact.trained,
            "percent": 100 * fact.share,
            "saved_bytes": fact.saved_bytes,
        }
        for model, of_model in facts.items()
        for fact in of_model
    ]
    text = methods_table(facts, markdown=True)
    (options.output / "parameter_use.md").write_text(f"{text}\n")
    figure = plot_shares(rows, options.output / "parameter_use.png", methods=DRAWN)
    print(text, figure, *write_table(rows, options.output / "parameter_use"), sep="\n")


if __name__ == "__main__":
    with_one_line_errors(main)
