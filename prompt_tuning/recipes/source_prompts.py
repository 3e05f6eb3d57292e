"""Prompts of other tasks that methods and initializers start from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from prompt_tuning.checkpoints.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.frozen_base import Base


def source_prompts(base: Base, paths: Sequence[str]) -> Float32[np.ndarray, "sources prompt embed"]:
    """Returns the prompts of the files that SOURCE_PROMPTS lists, which must be of one length."""
    if isinstance(paths, str | Path) or not paths:
        raise UserError(
            f"SOURCE_PROMPTS is {paths!r}; expected a list of prompt files, such as "
            "['runs/cb/prompt_best.npy', 'runs/rte/prompt_best.npy']."
        )
    prompts = [source_prompt(base, path)[0] for path in paths]
    for path, prompt in zip(paths, prompts, strict=True):
        if len(prompt) != len(prompts[0]):
            raise UserError(
                f"The source prompt {path} has {len(prompt)} positions and {paths[0]} has "
                f"{len(prompts[0])}; give prompts of one length."
            )
    return np.stack(prompts)


def source_prompt(
    base: Base, path: str
) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
    """Returns the prompt of a file and what is known of it, checked to be the model's."""
    expect = (None, base.config.embed_dim)
    return load_prompt(path, expect, model=base.config.name, vocabulary_hash=vocabulary_hash(base))


def vocabulary_hash(base: Base) -> str | None:
    """None where there is no vocabulary: `prompt-tuning plan` asks for sizes alone."""
    return getattr(base.vocabulary, "hash", None)
