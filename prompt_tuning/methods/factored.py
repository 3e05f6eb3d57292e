"""Factored prompts: one of a language and one of a task (Vu et al., 2022, arXiv 2205.12647).

    P = [P_language; P_task]

Both parts are trained on a mixture, each of whose tasks has a language and a task, such as a
summarization in English and span corruption in English and Thai. The language parts are shared by
tasks, and the task parts by languages, so parts that were never trained together can be combined:
summarization in Thai (`of_parts`).
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import Initializer, MakeInitializer, random_uniform
from prompt_tuning.methods.prompt import check_prompt_length, fold_into_soft_prompt
from prompt_tuning.models.injection import Injection


class FactoredPrompt(MethodModule):
    """A prompt of `length` virtual tokens for each language, and as long a one for each task.

    The trainable parameters are "languages" [languages, length, embed] and "tasks" [tasks, length,
    embed]. With several parts, `batch["task"]` [batch] is each example's index in `parts`.

    Attributes:
      length: number of virtual tokens of a part; a prompt has twice as many.
      embed_dim: the frozen model's `embed_dim`.
      parts: the language and the task of each task of the mixture, by any names.
      initializer: initializes the parts, [languages * length, embed] and [tasks * length, embed].

    Raises:
      UserError: the length isn't positive, or there are no parts; or, when called, the batch lacks
        the examples' tasks.
    """

    length: int
    embed_dim: int
    parts: tuple[tuple[str, str], ...]
    initializer: Initializer = random_uniform()

    def __post_init__(self):
        check_prompt_length(self.length)
        if not self.parts or any(len(part) != 2 for part in self.parts):
            raise UserError(
                f"The parts of a factored prompt are {self.parts!r}; expected a language and a "
                "task for each task of the mixture, such as (('en', 'summarize'), ('th', 'span'))."
            )
        super().__post_init__()

    @property
    def languages(self) -> list[str]:
        """The names of the languages, in order."""
        return list(dict.fromkeys(language for language, _ in self.parts))

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, in order."""
        return list(dict.fromkeys(task for _, task in self.parts))

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the prompt of each example's language and task."""
        place = self._place_of(batch)
        chosen = []
        for name, known in (("languages", self.languages), ("tasks", self.tasks)):
            shape = (len(known) * self.length, self.embed_dim)
            prompts = self.param(name, self.initializer, shape, jnp.float32)
            prompts = prompts.reshape(len(known), self.length, self.embed_dim)
            index = np.array([known.index(part[len(chosen)]) for part in self.parts])
            chosen.append(prompts[jnp.asarray(index)[place]])
        # [batch or 1, 2 * length, embed]
        return Injection(encoder_prompt=jnp.concatenate(chosen, axis=1))

    def _place_of(self, batch: Batch) -> Int[Array, "#batch"]:
        if len(self.parts) == 1 or ("task" not in batch and self.is_initializing()):
            return jnp.zeros(1, jnp.int32)
        if "task" not in batch:
            raise UserError(
                f"A factored prompt of {len(self.parts)} tasks was given examples without their "
                "task: use it with the mixture that it was trained on, or the prompt of one "
                "language and task (`of_parts`)."
            )
        return jnp.asarray(batch["task"])

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the prompt of a single language and task; several stay unfolded."""
        return self.of_parts(trained, *self.parts[0]) if len(self.parts) == 1 else (self, trained)  # pyright: ignore[reportReturnType]

    def of_parts(self, trained: Trained, language: str, task: str) -> tuple[Method, Trained]:
        """Returns the `SoftPrompt` of a language and a task, trained together or not.

        Raises:
          UserError: one isn't among the parts.
        """
        for kind, name, known in (
            ("language", language, self.languages),
            ("task", task, self.tasks),
        ):
            if name not in known:
                raise UserError(
                    f"This factored prompt has no {kind} '{name}'; expected {', '.join(known)}."
                    f"{did_you_mean(name, known)}"
                )
        params = {
            "languages": self._part(trained, "languages", self.languages.index(language)),
            "tasks": self._part(trained, "tasks", self.tasks.index(task)),
        }
        alone = self.clone(parts=((language, task),), parent=None)
        return fold_into_soft_prompt(alone, {"params": params})

    def _part(self, trained: Trained, name: str, index: int) -> Array:
        return trained["params"][name][index * self.length : (index + 1) * self.length]


@method
def factored_prompt(
    base: FrozenModel,
    length: int,
    mixture_or_task: Any,
    parts: Sequence[Sequence[str]],
    initializer: MakeInitializer,
) -> FactoredPrompt:
    """A language's and a task's prompt for each task of a mixture.

    Raises:
      UserError: there aren't as many parts as tasks.
    """
    tasks = base.count_tasks(mixture_or_task)
    if tasks != len(parts):
        raise UserError(
            f"factored_prompt.parts has {len(parts)} entries for the {tasks} tasks of the mixture; "
            "give the language and the task of each, in the mixture's order."
        )
    return FactoredPrompt(
        length=length,
        embed_dim=base.config.embed_dim,
        parts=tuple((language, task) for language, task in parts),
        initializer=initializer(base),
    )
