"""`prompt-tuning publish`: shares a run's prompt, with a model card, on the Hugging Face hub.

prompt-tuning publish runs/rte my-name/rte-prompt --base_model google/t5-base-lm-adapt
prompt-tuning publish runs/rte --output shared/rte
"""

from collections.abc import Sequence

from prompt_tuning.cli.parsers import parse
from prompt_tuning.recipes.publishing import publish


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints where the prompt is, and how to use it."""
    args = parse("publish", argv)
    place = publish(
        args.run,
        args.repository,
        folder=args.output,
        base_model=args.base_model,
        license=args.license,
        private=args.private,
    )
    print(place)
    prompt = args.repository or place
    print(f"Use it:  prompt-tuning evaluate --prompt {prompt} --gin_file=models/... --gin_file=...")
