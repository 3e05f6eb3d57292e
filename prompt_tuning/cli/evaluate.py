"""`prompt-tuning evaluate`: scores a saved prompt, from a run folder or from any prompt file.

The score of a run's best prompt comes out as training measured it, to the last digit: the same
compiled program runs on the same batches.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints one line of JSON."""
    parser = Parser("evaluate", "Scores a prompt on a task and prints the metrics as JSON.")
    parser.add_prompt_arguments()
    parser.add_argument("--split", help="the split to score (default: predict.split)")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write what was predicted, one JSON row a line"
    )
    args = parser.parse(argv)

    from prompt_tuning.cli import configurables, session

    session.load_config(args, run=args.run)
    path = session.prompt_path(args.run, args.prompt)
    data = configurables.data()
    prediction = configurables.predict(data)
    split = args.split or prediction.split
    base = session.load_base(data)
    prompt, metadata = session.load_prompt_for(base, path)
    score = session.scorer(base, data, prediction, split)
    found = score(session.inject_prompt(base, prompt))

    if args.predictions:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found.predictions]
        Path(args.predictions).write_text("".join(lines), encoding="utf-8")
    result = {
        "task": data.name,
        "split": split,
        "prompt": path,
        **found.metrics,
        "score": found.score,
    }
    print(json.dumps(result))
    if metadata.score is not None and (data.name, split) == (metadata.task, prediction.split):
        same = "the same" if metadata.score == found.score else "not the same"
        session.say(f"Training measured {metadata.score} at step {metadata.step}: {same}.")


if __name__ == "__main__":
    run(main)
