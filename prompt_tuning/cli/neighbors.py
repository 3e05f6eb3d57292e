"""`prompt-tuning neighbors`: a report on the pieces nearest to a prompt and its effect."""

from collections.abc import Sequence

from prompt_tuning.analysis.neighbors import format_neighbors
from prompt_tuning.cli import configurables, gin_config, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError, at_least
from prompt_tuning.recipes import prompts
from prompt_tuning.recipes.prompt_report import Report


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("neighbors", argv)
    at_least(1, {"-k": args.k})
    if (args.attention or args.removals) and not args.report:
        flag = "--attention" if args.attention else "--removals"
        raise UserError(f"{flag} requires --report FOLDER.")
    loading.load_config(args, run=args.run)
    path = loading.prompt_path(args.run, args.prompt)
    report = report_of(path, k=args.k, metric=args.metric, words=args.words)
    print(format_neighbors(report.neighbors))
    if args.report:
        if args.attention:
            report.add_attention()
        if args.removals:
            report.add_removals()
        print(f"\n{report.write(args.report)}")


def report_of(path: str, *, k: int, metric: str = "cosine", words: bool = False) -> Report:
    """Returns the report on a prompt file, using the loaded configuration."""
    data = configurables.data()
    base = loading.load_base(data)
    prompt = base.load_adapter(path).prompt
    labels = gin_config.macro("CLASS_LABELS")
    return Report(
        base,
        data,
        configurables.predict(data),
        prompt,
        prompts.neighbors_of(base, prompt, k=k, metric=metric, words=words),
        title=path,
        metric=metric,
        labels=labels if isinstance(labels, list | tuple) else None,
    )
