"""`prompt-tuning merge`: merges a trained method into its frozen model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.files import new_folder
from prompt_tuning.models.merging import merge_injection
from prompt_tuning.recipes.model_files import write_model


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the path of the model that it wrote."""
    args = parse("merge", argv)
    loading.load_config(args, run=args.run)
    path = loading.prompt_path(args.run, args.adapter)
    base = loading.load_base(configurables.data())
    adapter = base.load_adapter(path)
    merged = merge_injection(base.params, adapter.injection)
    folder = new_folder(Path(args.output))
    # Prompts for the frozen model don't fit this one.
    config = dataclasses.replace(base.config, name=f"{base.config.name}_{folder.name}")
    recorded = {f"adapter_{key}": text for key, text in adapter.metadata.to_strings().items()}
    metadata = {"frozen_model": base.config.name, **recorded}
    print(write_model(folder, merged, config, base.vocabulary, metadata, form=args.format))
