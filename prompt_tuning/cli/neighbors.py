"""`prompt-tuning neighbors`: the vocabulary pieces nearest to each position of a prompt."""

from collections.abc import Sequence

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("neighbors", "Shows the vocabulary pieces nearest to a prompt's positions.")
    parser.add_prompt_arguments()
    parser.add_argument("-k", type=int, default=5, help="pieces a position (default: 5)")
    parser.add_argument(
        "--metric", default="cosine", help="cosine (the paper's, the default) or euclidean"
    )
    args = parser.parse(argv)

    from prompt_tuning.cli import configurables, session

    session.load_config(args, run=args.run)
    path = session.prompt_path(args.run, args.prompt)
    base = session.load_base(configurables.data())
    prompt = session.load_adapter_for(base, path).prompt
    print(session.neighbors_text(base, prompt, k=args.k, metric=args.metric))


if __name__ == "__main__":
    run(main)
