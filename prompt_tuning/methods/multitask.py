"""Multitask prompt tuning: one prompt for many tasks (MPT; Wang et al., 2023, section 3).

    P_k = P * (u_k v_k^T)

The product is elementwise. P, [prompt, embed], is shared by all tasks; u_k, [prompt], and v_k,
[embed], belong to task k. All are trained on a mixture whose batches contain each example's task,
preferably while distilling a separate prompt of each task (`training/distillation.py`). A new task
is initialized with P and the mean of the tasks' vectors (`adapted`).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Batch, Method, MethodModule, Trained
from prompt_tuning.methods.factories import FrozenModel, method
from prompt_tuning.methods.initializers import (
    Initializer,
    MakeInitializer,
    from_array,
    random_uniform,
)
from prompt_tuning.methods.prompt import check_prompt_length, fold_into_soft_prompt
from prompt_tuning.models.injection import Injection
from prompt_tuning.settings import HashedFiles


class MultitaskPrompt(MethodModule):
    """A shared prompt of `length` virtual tokens, and one vector per axis for each task.

    The vectors are initialized to one, so each task's prompt is initially the shared one; the
    paper states no values. With several tasks, `batch["task"]` [batch] is each example's task
    index.

    Attributes:
      length: number of virtual tokens.
      embed_dim: the frozen model's `embed_dim`.
      tasks: number of tasks.
      initializer: initializes the shared prompt.
      column_initializer: initializes u, [tasks, length].
      row_initializer: initializes v, [tasks, embed_dim].

    Raises:
      UserError: the length or the number of tasks isn't positive; or, when called, the batch
        lacks the examples' tasks.
    """

    length: int
    embed_dim: int
    tasks: int
    initializer: Initializer = random_uniform()
    column_initializer: Any = nn.initializers.ones
    row_initializer: Any = nn.initializers.ones

    def __post_init__(self):
        check_prompt_length(self.length)
        if self.tasks < 1:
            raise UserError(f"A multitask prompt has {self.tasks} tasks; expected at least 1.")
        super().__post_init__()

    @nn.compact
    def __call__(self, batch: Batch) -> Injection:
        """Returns the prompt of each example's task."""
        shape = (self.length, self.embed_dim)
        shared = self.param("prompt", self.initializer, shape, jnp.float32)
        columns = self.param("columns", self.column_initializer, (self.tasks, self.length))
        rows = self.param("rows", self.row_initializer, (self.tasks, self.embed_dim))
        task = self._task_of(batch)
        # [batch or 1, prompt, embed]
        return Injection(encoder_prompt=shared * columns[task][:, :, None] * rows[task][:, None])

    def _task_of(self, batch: Batch) -> Int[Array, "#batch"]:
        if self.tasks == 1 or ("task" not in batch and self.is_initializing()):
            return jnp.zeros(1, jnp.int32)
        if "task" not in batch:
            raise UserError(
                f"A prompt of {self.tasks} tasks was given examples without their task: use it "
                "with the mixture that it was trained on, or export the prompt of one task."
            )
        return jnp.asarray(batch["task"])

    def fold(self, trained: Trained) -> tuple[Method, Trained]:
        """Returns the prompt of a single task; several tasks stay unfolded (see `of_task`)."""
        return self.of_task(trained, 0) if self.tasks == 1 else super().fold(trained)

    def of_task(self, trained: Trained, task: int) -> tuple[Method, Trained]:
        """Returns the `SoftPrompt` of one task, by its index.

        Raises:
          UserError: the index is out of range.
        """
        if not 0 <= task < self.tasks:
            raise UserError(f"There is no task {task} among the {self.tasks} of this prompt.")
        return fold_into_soft_prompt(self, trained, {"task": np.array([task], np.int32)})


def adapted(trained: Trained) -> MultitaskPrompt:
    """Returns the method for one new task, initialized from trained tasks (section 3.2).

    Args:
      trained: the variables of a `MultitaskPrompt` with any number of tasks.
    """
    params = trained["params"]
    shared: Float[Array, "prompt embed"] = params["prompt"]
    length, embed_dim = shared.shape

    def mean(vectors: Float[Array, "tasks length"]) -> Any:
        return from_array(vectors.mean(axis=0, keepdims=True))

    return MultitaskPrompt(
        length=length,
        embed_dim=embed_dim,
        tasks=1,
        initializer=from_array(shared),
        column_initializer=mean(params["columns"]),
        row_initializer=mean(params["rows"]),
    )


@method
def multitask_prompt(
    base: FrozenModel, length: int, mixture_or_task: Any, initializer: MakeInitializer
) -> MultitaskPrompt:
    """A prompt shared by the tasks of a mixture (MPT)."""
    return MultitaskPrompt(
        length=length,
        embed_dim=base.config.embed_dim,
        tasks=base.count_tasks(mixture_or_task),
        initializer=initializer(base),
    )


@method
def adapted_multitask_prompt(base: FrozenModel, source: HashedFiles[str]) -> MultitaskPrompt:
    """A prompt for one new task, initialized with the file of a multitask prompt (MPT).

    Raises:
      UserError: the file contains another method.
    """
    adapter = base.load_adapter(source)
    if not isinstance(adapter.method, MultitaskPrompt):
        raise UserError(
            f"{source} contains a {adapter.metadata.method}; expected a multitask_prompt of "
            "several tasks to start from."
        )
    return adapted(adapter.trained)
