"""The methods that gin can choose, `train.method = @NAME`, and what needs other tasks' prompts.

As in `configurables.py`, each is a function of the frozen model and its vocabulary, `Base`.
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis.prompt_similarity import most_similar_first
from prompt_tuning.checkpoints.adapter_files import load_adapter
from prompt_tuning.checkpoints.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.cli.configurables import Base, Data
from prompt_tuning.cli.gin_config import register
from prompt_tuning.data.mixtures import Mixture, mixture_of
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers
from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.multitask import MultitaskPrompt, adapted
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.residual import ResidualPrompt
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections
from prompt_tuning.parallel.processes import is_first
from prompt_tuning.settings import HashedFiles

MakeInitializer = Callable[[Base], initializers.Initializer]


@register
def p_tuning(
    base: Base,
    length: int,
    initializer: MakeInitializer,
    encoder: str = "lstm",
    hidden_dim: int | None = None,
) -> Method:
    """P-tuning; `hidden_dim` None is the paper's, half of the model's width."""
    return _method(
        PTuning(
            length=length,
            embed_dim=base.config.embed_dim,
            hidden_dim=base.config.embed_dim // 2 if hidden_dim is None else hidden_dim,
            encoder=encoder,
            initializer=initializer(base),
        )
    )


@register
def residual_prompt(
    base: Base, length: int, initializer: MakeInitializer, bottleneck: int = 800
) -> Method:
    """A residual prompt."""
    return _method(
        ResidualPrompt(
            length=length,
            embed_dim=base.config.embed_dim,
            bottleneck=bottleneck,
            initializer=initializer(base),
        )
    )


@register
def mixed_prompt(
    base: Base, sources: HashedFiles[Sequence[str]], initializer: MakeInitializer
) -> Method:
    """A prompt mixed out of those of the files `sources` and its own, alike for every input."""
    prompts = _source_prompts(base, sources)
    return _method(
        MixedPrompt(
            length=prompts.shape[1],
            embed_dim=prompts.shape[2],
            sources=prompts.shape[0],
            initializer=initializer(base),
            source_initializer=initializers.from_array(prompts),
        )
    )


@register
def attention_mixed_prompt(
    base: Base,
    sources: HashedFiles[Sequence[str]],
    initializer: MakeInitializer,
    width: int = 100,
    temperature: float | None = None,
) -> Method:
    """The same by attention to each input (ATTEMPT); `temperature` None is e times the width."""
    prompts = _source_prompts(base, sources)
    embed_dim = base.config.embed_dim
    return _method(
        AttentionMixedPrompt(
            length=prompts.shape[1],
            embed_dim=embed_dim,
            sources=prompts.shape[0],
            width=width,
            temperature=math.e * embed_dim if temperature is None else temperature,
            initializer=initializer(base),
            source_initializer=initializers.from_array(prompts),
        )
    )


@register
def multitask_prompt(
    base: Base, length: int, mixture_or_task: str | Task | Mixture, initializer: MakeInitializer
) -> Method:
    """A prompt shared by the tasks of a mixture (MPT)."""
    return _method(
        MultitaskPrompt(
            length=length,
            embed_dim=base.config.embed_dim,
            tasks=len(mixture_of(mixture_or_task).tasks),
            initializer=initializer(base),
        )
    )


@register
def adapted_multitask_prompt(base: Base, source: HashedFiles[str]) -> Method:
    """The prompt of one new task, started from a file of a multitask prompt (MPT).

    Raises:
      UserError: the file holds something else.
    """
    adapter = load_adapter(
        source,
        embed_dim=base.config.embed_dim,
        model=base.config.name,
        vocabulary_hash=_vocabulary_hash(base),
    )
    if not isinstance(adapter.method, MultitaskPrompt):
        raise UserError(
            f"{source} holds a {adapter.metadata.method}; expected a multitask_prompt of several "
            "tasks to start from."
        )
    return _method(adapted(adapter.trained))


@register
def most_similar(
    base: Base,
    target: HashedFiles[str],
    sources: HashedFiles[Sequence[str]],
    similarity: str = "cosine_of_means",
) -> initializers.Initializer:
    """The one of the prompt files `sources` most like a briefly trained prompt, `target` (SPoT)."""
    prompts = dict(zip(sources, _source_prompts(base, sources), strict=True))
    ranked = most_similar_first(_prompt(base, target)[0], prompts, similarity)
    chosen = next(iter(ranked))
    told = ", ".join(f"{name} {value:.3f}" for name, value in ranked.items())
    if is_first():
        print(
            f"Starting from {chosen}, the most similar to {target} by {similarity} ({told}).",
            file=sys.stderr,
        )
    return initializers.from_array(prompts[chosen])


def teachers(base: Base, data: Data, paths: Sequence[str]) -> Injection:
    """Returns the prompts of the files that `train.teachers` lists, one for each task.

    Raises:
      UserError: there are more or fewer of them, or one says that it was trained on another task.
    """
    if len(paths) != len(data.tasks):
        raise UserError(
            f"train.teachers lists {len(paths)} prompts for the {len(data.tasks)} tasks of "
            f"{data.name}; give one for each of {', '.join(task.name for task in data.tasks)}."
        )
    found = []
    for task, path in zip(data.tasks, paths, strict=True):
        prompt, metadata = _prompt(base, path)
        if metadata.task not in (None, task.name):
            raise UserError(
                f"The teacher of {task.name} is {path}, which was trained on {metadata.task}; list "
                "train.teachers in the order of the mixture's tasks."
            )
        if metadata.target_sentinel not in (None, data.target_sentinel):
            raise UserError(
                f"The teacher {path} was trained with data.target_sentinel="
                f"{metadata.target_sentinel} and is to teach with {data.target_sentinel}; set one."
            )
        found.append(Injection(encoder_prompt=jnp.asarray(prompt)[None]))
    return batch_injections(found)


def _source_prompts(
    base: Base, paths: Sequence[str]
) -> Float32[np.ndarray, "sources prompt embed"]:
    if isinstance(paths, str | Path) or not paths:
        raise UserError(
            f"SOURCE_PROMPTS is {paths!r}; expected a list of prompt files, such as "
            "['runs/cb/prompt_best.npy', 'runs/rte/prompt_best.npy']."
        )
    prompts = [_prompt(base, path)[0] for path in paths]
    for path, prompt in zip(paths, prompts, strict=True):
        if len(prompt) != len(prompts[0]):
            raise UserError(
                f"The source prompt {path} has {len(prompt)} positions and {paths[0]} has "
                f"{len(prompts[0])}; give prompts of one length."
            )
    return np.stack(prompts)


def _prompt(base: Base, path: str) -> tuple[Float32[np.ndarray, "prompt embed"], PromptMetadata]:
    expect = (None, base.config.embed_dim)
    return load_prompt(path, expect, model=base.config.name, vocabulary_hash=_vocabulary_hash(base))


def _vocabulary_hash(base: Base) -> str | None:
    """None where there is no vocabulary: `prompt-tuning plan` asks for sizes alone."""
    return getattr(base.vocabulary, "hash", None)


def _method(module: Any) -> Method:
    return cast(Method, module)  # Flax types what `apply` returns only loosely
