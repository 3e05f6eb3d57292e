"""The methods that train prompts, each made by a function of the frozen model and vocabulary."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax.numpy as jnp

from prompt_tuning.checkpoints.adapter_files import load_adapter
from prompt_tuning.data.mixtures import Mixture, mixture_of
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.methods import initializers
from prompt_tuning.methods.attention_mixed import AttentionMixedPrompt, MixedPrompt
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.multitask import MultitaskPrompt, adapted
from prompt_tuning.methods.p_tuning import PTuning
from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.methods.residual import ResidualPrompt
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.source_prompts import source_prompt, source_prompts, vocabulary_hash
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.settings import HashedFiles

MakeInitializer = Callable[[Base], initializers.Initializer]


def soft_prompt(
    base: Base, length: int, initializer: MakeInitializer, placement: str = "before"
) -> Method:
    """Prompt tuning's soft prompt of `length` virtual tokens; see `PLACEMENTS`."""
    prompt = SoftPrompt(
        length=length,
        embed_dim=base.config.embed_dim,
        placement=placement,
        initializer=initializer(base),
    )
    return cast(Method, prompt)  # Flax types what `apply` returns only loosely


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


def mixed_prompt(
    base: Base, sources: HashedFiles[Sequence[str]], initializer: MakeInitializer
) -> Method:
    """A prompt mixed out of those of the files `sources` and its own, alike for every input."""
    prompts = source_prompts(base, sources)
    return _method(
        MixedPrompt(
            length=prompts.shape[1],
            embed_dim=prompts.shape[2],
            sources=prompts.shape[0],
            initializer=initializer(base),
            source_initializer=initializers.from_array(prompts),
        )
    )


def attention_mixed_prompt(
    base: Base,
    sources: HashedFiles[Sequence[str]],
    initializer: MakeInitializer,
    width: int = 100,
    temperature: float | None = None,
) -> Method:
    """The same by attention to each input (ATTEMPT); `temperature` None is e times the width."""
    prompts = source_prompts(base, sources)
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


def adapted_multitask_prompt(base: Base, source: HashedFiles[str]) -> Method:
    """The prompt of one new task, started from a file of a multitask prompt (MPT).

    Raises:
      UserError: the file holds something else.
    """
    adapter = load_adapter(
        source,
        embed_dim=base.config.embed_dim,
        model=base.config.name,
        vocabulary_hash=vocabulary_hash(base),
    )
    if not isinstance(adapter.method, MultitaskPrompt):
        raise UserError(
            f"{source} holds a {adapter.metadata.method}; expected a multitask_prompt of several "
            "tasks to start from."
        )
    return _method(adapted(adapter.trained))


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
        prompt, metadata = source_prompt(base, path)
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


def _method(module: Any) -> Method:
    return cast(Method, module)  # Flax types what `apply` returns only loosely
