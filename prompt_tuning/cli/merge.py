"""`prompt-tuning merge`: a frozen model with what was trained for it, as one model of its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError

WEIGHTS, VOCABULARY = "weights.safetensors", "spiece.model"


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the path of the model that it wrote."""
    parser = Parser(
        "merge", "Adds what a run has trained to its frozen model's weights (lora, ia3, weights)."
    )
    parser.add_argument("run", metavar="RUN", help="a run folder; its best is merged")
    parser.add_argument(
        "--adapter", metavar="FILE", help="another file, or a PEFT adapter, in place of its best"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="a new folder")
    args = parser.parse(argv)

    from prompt_tuning.checkpoints.weights import save_weights
    from prompt_tuning.cli import configurables, session
    from prompt_tuning.data.vocabularies import ByteVocabulary
    from prompt_tuning.files import atomic_write, writing
    from prompt_tuning.models.merging import merge_injection

    fix = "Give another folder."
    session.load_config(args, run=args.run)
    path = session.prompt_path(args.run, args.adapter)
    base = session.load_base(configurables.data())
    adapter = session.load_adapter_for(base, path)
    merged = merge_injection(base.params, adapter.injection)
    folder = Path(args.output)
    with writing(folder, fix=fix):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                f"{folder} isn't empty, and nothing is written over; give a new folder."
            )
    # Prompts for the frozen model don't fit this one.
    name = f"{base.config.name}_{folder.name}"
    save_weights(
        folder / WEIGHTS,
        merged,
        dataclasses.replace(base.config, name=name),
        {
            "vocabulary": base.vocabulary.path.name,
            "vocabulary_hash": base.vocabulary.hash,
            "frozen_model": base.config.name,
            **{f"adapter_{key}": text for key, text in adapter.metadata.to_strings().items()},
        },
    )
    if not isinstance(base.vocabulary, ByteVocabulary):
        with atomic_write(folder / VOCABULARY, fix=fix) as file:
            file.write(base.vocabulary.path.read_bytes())
    print(folder / WEIGHTS)


if __name__ == "__main__":
    run(main)
