"""Reads trained adapters; their injections and nearest neighbors."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis.neighbors import (
    Neighbor,
    cleaned,
    format_neighbors,
    nearest_neighbors,
)
from prompt_tuning.checkpoints.adapters.adapter_files import Adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.answerer import Inject
from prompt_tuning.methods.base import Method, Trained
from prompt_tuning.models.injection import Injection
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.task_data import Data


def open_prompt(base: Base, data: Data, path: str | None) -> tuple[Inject, PromptMetadata]:
    """Returns a prompt file's injection function and metadata; an empty injection if None.

    Raises:
      UserError: as `Base.load_adapter` and `check_target_form`.
    """
    if path is None:
        return lambda batch: Injection(), PromptMetadata()
    adapter = base.load_adapter(path)
    check_target_form(data, adapter, path)
    return adapter.inject, adapter.metadata


def check_target_form(data: Data, adapter: Adapter, path: str) -> None:
    """Checks that the data's target format is the one an adapter was trained with, if recorded.

    Raises:
      UserError: only one of them has a sentinel before the targets.
    """
    trained = adapter.metadata.target_sentinel
    if trained in (None, data.target_sentinel):
        return
    raise UserError(
        f"{path} was trained {'with' if trained else 'without'} a sentinel before the targets; "
        f"set --gin.data.target_sentinel={trained}."
    )


def folded(method: Method, trained: Trained) -> Adapter:
    """Returns the adapter in training exactly as it would load from its saved file."""
    method, trained = method.fold(trained)
    return Adapter(method=method, trained=trained, metadata=PromptMetadata())


def injection_of(base: Base, prompt: Any) -> Injection:
    """Returns the injection of a prompt [length, embed].

    Raises:
      UserError: it doesn't have this shape, with the model's embed_dim.
    """
    prompt = jnp.asarray(prompt, jnp.float32)
    if prompt.ndim != 2 or prompt.shape[1] != base.config.embed_dim:
        raise UserError(
            f"A prompt has the shape {list(prompt.shape)}; expected [length, "
            f"{base.config.embed_dim}], the width of '{base.config.name}'."
        )
    return Injection(encoder_prompt=prompt[None])


def neighbors_of(
    base: Base,
    prompt: Float32[np.ndarray, "prompt embed"],
    *,
    k: int,
    metric: str = "cosine",
    words: bool = False,
) -> list[list[Neighbor]]:
    """Returns the k pieces nearest to each position of the prompt; `words` omits non-words."""
    piece = base.vocabulary.piece
    return nearest_neighbors(
        prompt,
        base.embedding,
        (lambda i: cleaned(piece(i))) if words else piece,
        k=k,
        metric=metric,
        num_pieces=base.vocabulary.num_pieces,
    )


def neighbors_text(
    base: Base,
    prompt: Float32[np.ndarray, "prompt embed"],
    *,
    k: int,
) -> str:
    """Returns one line per position of the prompt with its k nearest pieces by cosine."""
    return format_neighbors(neighbors_of(base, prompt, k=k))
