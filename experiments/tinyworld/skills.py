"""Draws what each shipped model can do against its size.

    python experiments/tinyworld/skills.py

A skill is the share of exercises of a kind that a model answers exactly, zero-shot, about facts
that the corpus holds back: the last row of each learning curve in `results/`. All models were
asked the same 128 exercises of each kind. Writes `results/skills.csv`, `.parquet` and `.png`, and
prints the means as a table.
"""

import json
import math
import statistics
from pathlib import Path

from pretrain import RESULTS, SIZES

from prompt_tuning.analysis.sweep_plots import plot_scale_curve
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.parameters import parameter_shapes
from prompt_tuning.sweeps.results import Row, write_table

ALL = "all exercises"
WORDS = "answered with words of the text"
VERDICTS = "answered with a verdict or a choice"
LEFT_OUT = ("list_pairs", "verify_part")
"""The order of one's answer can't be known; the other was not in all models' lessons."""


def group(exercise: str) -> str:
    """Returns what an exercise is answered with."""
    prefix = exercise.partition("_")[0]
    return VERDICTS if prefix in ("find", "verify", "compare", "name", "choose") else WORDS


def skills() -> list[Row]:
    """Returns a row for each T5 and exercise, from the smallest model."""
    rows = []
    for size, config in SIZES.items():
        if not isinstance(config, T5Config) or not (curve := RESULTS / f"{size}.jsonl").exists():
            continue
        last = json.loads(curve.read_text().splitlines()[-1])
        known = ("step", "phase", "seconds", "loss", *LEFT_OUT)
        number = sum(math.prod(shape) for shape in parameter_shapes(config).values())
        rows += [
            {
                "model": config.name,
                "parameters": number,
                "exercise": exercise,
                "group": group(exercise),
                "exact": share,
            }
            for exercise, share in last.items()
            if exercise not in known
        ]
    return rows


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


def main(output: Path = RESULTS) -> None:
    rows = skills()
    scores = means(rows)
    parameters = {row["model"]: row["parameters"] for row in rows}
    methods = (ALL, WORDS, VERDICTS)
    lines = [("model", "parameters", *methods), ("---",) * 5]
    for model, number in parameters.items():
        shares = {row["method"]: row["score"] for row in scores if row["model"] == model}
        lines.append((model, f"{number:,}", *(f"{shares[name]:.3f}" for name in methods)))
    figure = plot_scale_curve(
        scores,
        output / "skills.png",
        parameters=parameters,
        methods=methods,
        title="Share of held-out exercises answered exactly, without a prompt",
    )
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    print(table, figure, *write_table(rows, output / "skills"), sep="\n")


if __name__ == "__main__":
    main()
