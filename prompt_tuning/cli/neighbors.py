"""`prompt-tuning neighbors`: what a prompt's positions resemble, and what they do in the model."""

import argparse
from collections.abc import Sequence

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("neighbors", "Shows the vocabulary pieces nearest to a prompt's positions.")
    parser.add_prompt_arguments()
    parser.add_argument("-k", type=int, default=5, help="pieces a position (default: 5)")
    parser.add_argument(
        "--metric", default="cosine", help="cosine (the paper's, the default) or euclidean"
    )
    parser.add_argument(
        "--words",
        action="store_true",
        help="text only: no marks of word starts, control pieces or punctuation, each text once",
    )
    parser.add_argument(
        "--report",
        metavar="FOLDER",
        help="write tables (CSV, Markdown) and pictures there: neighbors, how tight they are, "
        "class labels among them, repeats, norms",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="in the report, the attention on the prompt by layer, over predict.split",
    )
    parser.add_argument(
        "--removals",
        action="store_true",
        help="in the report, the score on predict.split as positions are removed: twice as many "
        "evaluations as the prompt has positions",
    )
    args = parser.parse(argv)
    if args.k < 1:
        raise UserError(f"-k is {args.k}; expected at least 1.")
    if (args.attention or args.removals) and not args.report:
        flag = "--attention" if args.attention else "--removals"
        raise UserError(f"{flag} is for a report; add --report FOLDER.")
    _neighbors(args)


def _neighbors(args: argparse.Namespace) -> None:
    from prompt_tuning.analysis.neighbors import format_neighbors
    from prompt_tuning.cli import configurables, prompt_report, session
    from prompt_tuning.recipes import prompts

    session.load_config(args, run=args.run)
    path = session.prompt_path(args.run, args.prompt)
    data = configurables.data()
    base = session.load_base(data)
    prompt = base.load_adapter(path).prompt
    found = prompts.neighbors_of(base, prompt, k=args.k, metric=args.metric, words=args.words)
    print(format_neighbors(found))
    if args.report:
        report = prompt_report.Report(base, data, prompt, found, title=path, metric=args.metric)
        if args.attention:
            report.add_attention()
        if args.removals:
            report.add_removals()
        print(f"\n{report.write(args.report)}")


if __name__ == "__main__":
    run(main)
