"""Trains a soft prompt from Python: the quickstart's, which reaches about 0.97 within ten steps.

python examples/train_prompt.py runs/example
"""

import sys
from typing import Any

import prompt_tuning as pt

ROW = {"premise": "Tom lost a goat in the museum.", "hypothesis": "Tom lost a mammal."}


def main(folder: str, **changes: Any) -> pt.Run:
    base = pt.load("tinyworld_small")
    method = pt.soft_prompt(length=20, initializer=pt.sampled_vocabulary())
    options = {"steps": 10, "eval_every": 2, "log_every": 2, **changes}
    run = pt.train(base, method, "tinyworld_rte", folder=folder, **options)
    print(f"Accuracy {run.score:.4f} at step {run.best_step}")
    print(ROW, "->", run.predict([ROW])[0])
    return run


if __name__ == "__main__":
    main(sys.argv[1])
