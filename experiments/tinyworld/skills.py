"""Measures what each shipped model can do, and draws it against the model's size.

    python experiments/tinyworld/skills.py

For each exercise of the corpus, about facts that the corpus holds back: the share that the model
answers exactly, zero-shot. All models answer the same exercises. Writes `results/skills.csv`,
`.parquet` and `.png`, and prints the means as a table.
"""

import argparse
import statistics
from pathlib import Path

import corpus
import exercises
import jax
import sentencepiece
from pretrain import ASSETS, RESULTS, SIZES, make_probe

from prompt_tuning.analysis.sweep_plots import plot_scale_curve
from prompt_tuning.checkpoints.frozen.weights import load_weights
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.models.t5 import T5
from prompt_tuning.sweeps.results import Row, write_table

ALL = "all exercises"
VERDICTS = "verdicts and choices"
WORDS = "words of the text"
UNFORESEEABLE = exercises.list_pairs
"""Its answer is in an order that can't be known."""


def group(exercise: str) -> str:
    """Returns what an exercise is answered with."""
    prefix = exercise.partition("_")[0]
    return VERDICTS if prefix in ("find", "verify", "compare", "choose") else WORDS


def measure(size: str, encode, count: int) -> list[Row]:
    """Returns a row for each exercise.

    Args:
      size: the model's.
      encode: from texts to token ids.
      count: exercises of each kind.
    """
    config, params, _ = load_weights(ASSETS / f"tinyworld_{size}.safetensors")
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    probe = make_probe(T5(config, Compute()), encode, count)
    asked = [exercise for exercise in corpus.EXERCISES if exercise is not UNFORESEEABLE]
    return [
        {
            "model": config.name,
            "parameters": count_parameters(params),
            "exercise": exercise,
            "group": group(exercise),
            "exact": share,
        }
        for exercise, share in probe(params, asked).items()
    ]


def means(rows: list[Row]) -> list[Row]:
    """Returns each model's mean share of all exercises and of each group of them."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for name in (ALL, row["group"]):
            found.setdefault((row["model"], name), []).append(row["exact"])
    return [
        {"model": model, "method": name, "score": statistics.fmean(shares)}
        for (model, name), shares in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--count", type=int, default=256, help="exercises of each kind")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(ASSETS / "tinyworld.model"))
    shipped = [size for size in SIZES if (ASSETS / f"tinyworld_{size}.safetensors").exists()]
    rows = [row for size in shipped for row in measure(size, vocabulary.encode, args.count)]
    scores = means(rows)
    parameters = {row["model"]: row["parameters"] for row in rows}
    lines = [("model", "parameters", ALL, WORDS, VERDICTS), ("---",) * 5]
    for model, number in parameters.items():
        shares = {row["method"]: row["score"] for row in scores if row["model"] == model}
        cells = [f"{shares[name]:.3f}" for name in (ALL, WORDS, VERDICTS)]
        lines.append((model, f"{number:,}", *cells))
    figure = plot_scale_curve(
        scores,
        args.output / "skills.png",
        parameters=parameters,
        methods=[ALL, WORDS, VERDICTS],
        title="Share of held-out exercises answered exactly, without a prompt",
    )
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    print(table, figure, *write_table(rows, args.output / "skills"), sep="\n")


if __name__ == "__main__":
    main()
