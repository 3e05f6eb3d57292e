"""`prompt-tuning neighbors`: what a prompt's positions resemble, and what they do in the model."""

import argparse
from collections.abc import Sequence

from prompt_tuning.analysis.neighbors import format_neighbors
from prompt_tuning.cli import configurables, prompt_report, session
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError
from prompt_tuning.recipes import prompts


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("neighbors", argv)
    if args.k < 1:
        raise UserError(f"-k is {args.k}; expected at least 1.")
    if (args.attention or args.removals) and not args.report:
        flag = "--attention" if args.attention else "--removals"
        raise UserError(f"{flag} is for a report; add --report FOLDER.")
    _neighbors(args)


def _neighbors(args: argparse.Namespace) -> None:

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
