"""Distills prompts of many tasks, the teachers, into one (MPT; Wang et al., 2023).

    loss = task + weight * (KL(teacher || student) + mean (h_student - h_teacher)^2)

with the paper's weight of 0.9 (section 3.2, equations 3 to 5). The teachers are prompts for the
same frozen model, one per task. The divergence is over the vocabulary, for each target token. The
hidden states h are the encoder's outputs at the input's tokens, whose relative positions don't
depend on the prompt.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from prompt_tuning.errors import at_least
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.training import losses
from prompt_tuning.training.step import Batch, InjectionLossFn, differentiable


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The teachers, and the weight of their losses.

    Attributes:
      teachers: the tasks' prompts, stacked along the batch axis by `batch_injections`.
      weight: of both distillation losses; the task's loss has weight 1.
    """

    teachers: Injection
    weight: float = 0.9

    def __post_init__(self) -> None:
        at_least(0, {"train.distillation": self.weight})


def distillation_loss_fn(
    model: FrozenModel, options: losses.LossOptions, distillation: Distillation
) -> InjectionLossFn:
    """Returns a function that computes an injection's loss, including the distillation losses.

    In a batch of several tasks, "task" is the index of each example's teacher. The model runs
    twice; the teachers' pass has neither dropout nor a backward pass.
    """
    dropout = model.compute.dropout_rate > 0

    def run(
        frozen: Any, batch: Batch, injection: Injection, rngs: dict[str, Array]
    ) -> tuple[Float[Array, "batch source embed"], Float[Array, "batch target vocab"]]:
        """Returns the encoder's outputs at the input's positions, and the logits."""
        network = differentiable(model, injection)
        variables, injection = injected(frozen, injection)
        how = {"deterministic": not rngs, "rngs": rngs}
        tokens = batch["encoder_input_tokens"]
        encoded: Any = network.apply(variables, tokens, injection, method="encode", **how)
        logits: Any = network.apply(
            variables, encoded, batch["decoder_input_tokens"], method="decode", **how
        )
        start = injection.encoder_prompt_length
        return encoded.outputs[:, start : start + tokens.shape[1]], logits

    def loss_fn(injection, frozen, batch, key):
        rows = len(batch["encoder_input_tokens"])
        task = batch.get("task", jnp.zeros(rows, jnp.int32))
        teachers = jax.tree.map(lambda of_tasks: of_tasks[task], distillation.teachers)
        their_hidden, their_logits = run(frozen, batch, teachers, {})
        rngs = {"dropout": key} if dropout else {}
        hidden, logits = run(frozen, batch, injection, rngs)

        weights = batch["decoder_loss_weights"]
        task_loss, weight_sum = losses.cross_entropy(
            logits,
            batch["decoder_target_tokens"],
            weights,
            z_loss=options.z_loss,
            label_smoothing=options.label_smoothing,
        )
        theirs, ours = (jax.nn.log_softmax(each) for each in (their_logits, logits))
        divergence = jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)  # [batch, target]
        seen = batch["encoder_input_tokens"] != model.config.pad_id  # [batch, source]
        differences = jnp.square(hidden - their_hidden).astype(jnp.float32)
        # A mean over positions; the step divides by `weight_sum`, so multiply by it here.
        of_hidden = jnp.mean(differences, where=seen[..., None]) * weight_sum
        distilled = jnp.sum(divergence * weights) + of_hidden
        return task_loss + distillation.weight * distilled, weight_sum

    return loss_fn
