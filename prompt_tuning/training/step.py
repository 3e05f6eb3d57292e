"""One training step: a pure function from state, frozen weights and batch to the next state.

The step is generic in `loss_fn(trained, frozen, batch, key)`. It differentiates `trained` alone,
so nothing of the frozen weights' size is ever computed or kept beside them; a model is
pre-trained, or tuned whole, by the same step with all its weights in `trained`.

Losses are in `losses.py`, optimisers in `optimizers.py`; input and output are `loop.py`'s.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.training import losses

Batch = dict[str, Any]
"""Arrays under SeqIO's names, each with a leading `batch` axis."""

LossFn = Callable[[Any, Any, Batch, Array], tuple[Array, Array]]
"""(trained, frozen, batch, key) -> (sum of the tokens' losses, sum of their weights)."""

StepMetrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that changes as training goes on.

    Annotated as trees, since it also holds shapes or shardings in place of arrays.

    step: updates made, an int32 scalar.
    trained: the numbers being trained; a method's `init` makes them.
    opt_state: optax's state for them.
    """

    step: PyTree
    trained: PyTree
    opt_state: PyTree

    @classmethod
    def create(cls, trained: PyTree, optimizer: optax.GradientTransformation) -> "TrainState":
        """The state before the first step."""
        return cls(
            step=jnp.zeros((), jnp.int32),
            trained=trained,
            opt_state=optimizer.init(trained),
        )


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    accumulation_steps: int = 1,
    layout: PyTree = None,
) -> Callable[[TrainState, PyTree, Batch, Key[Array, ""]], tuple[TrainState, StepMetrics]]:
    """Compiles `(state, frozen, batch, key) -> (state, metrics)`.

    `key` is the run's key, the same at every step: the step folds in its own number, so that a
    resumed run draws what an uninterrupted one would. With `accumulation_steps` the batch is cut
    into that many microbatches, whose gradients are summed before the one update; the batch
    size must be divisible by it. The old state's memory is given to the new one. On several
    devices `layout` says how the state and the metrics lie, one sharding for all or a pair of
    trees: left to itself, XLA may split them.

    It is a program of its own: on a CPU, where it has `compiler_options`, JAX refuses to have it
    inside another jitted function.

    Metrics, all float32 scalars: `loss` (mean over the batch's weights, nats), `weight_sum`
    (target tokens), `gradient_norm` and `update_norm`. A training that has diverged shows in
    one of them as NaN or infinity.
    """

    def sums_and_gradient(trained, frozen, batch, key):
        """Sums over one microbatch; the gradient is that of the loss's sum."""
        (loss, weight), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            trained, frozen, batch, key
        )
        return loss, weight, gradient

    def accumulate(trained, frozen, batch, key):
        """The same over the whole batch, one microbatch at a time."""
        microbatches = jax.tree.map(lambda x: split_batch(x, accumulation_steps), batch)

        def add_microbatch(totals, item):
            index, microbatch = item
            sums = sums_and_gradient(trained, frozen, microbatch, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, totals, sums), None

        zeros = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
        totals, _ = jax.lax.scan(
            add_microbatch, zeros, (jnp.arange(accumulation_steps), microbatches)
        )
        return totals

    def train_step(state, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        gradient_of = sums_and_gradient if accumulation_steps == 1 else accumulate
        loss_sum, weight_sum, gradient = gradient_of(state.trained, frozen, batch, key)
        return updated(optimizer, state, loss_sum, weight_sum, gradient)

    return jax.jit(
        train_step, donate_argnums=0, out_shardings=layout, compiler_options=compiler_options()
    )


def compiler_options() -> dict[str, Any]:
    """What XLA is told when it compiles a step, on the platform that JAX computes on.

    For a CPU it starts as much as it can at once, and so cuts every layer's weights out of their
    stack before it needs any. Ordered to need little memory, a step takes as long
    (T5 1.1 Small on two cores: 513 MB of workspace for 666).
    """
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def updated(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    loss_sum: Float[Array, ""],
    weight_sum: Float[Array, ""],
    gradient: PyTree,
) -> tuple[TrainState, StepMetrics]:
    """Returns the next state and the step's metrics; `gradient` is that of the loss's sum."""
    gradient = jax.tree.map(lambda g: g / weight_sum, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained)
    metrics = {
        "loss": loss_sum / weight_sum,
        "weight_sum": weight_sum,
        "gradient_norm": optax.tree.norm(gradient),
        "update_norm": optax.tree.norm(updates),
    }
    state = TrainState(
        step=state.step + 1,
        trained=optax.apply_updates(state.trained, updates),
        opt_state=opt_state,
    )
    return state, metrics


InjectionLossFn = Callable[[Injection, Any, Batch, Array], tuple[Array, Array]]
"""(injection, frozen, batch, key) -> as `LossFn` returns."""


def injection_loss_fn(model: Any, options: losses.LossOptions) -> InjectionLossFn:
    """The loss of a frozen model into which something is injected."""

    def loss_fn(injection, frozen, batch, key):
        return _token_loss(_apply(model, frozen, batch, key, injection), batch, options)

    return loss_fn


def prompt_loss_fn(model: Any, method: Any, options: losses.LossOptions) -> LossFn:
    """The loss of a method's injection into a frozen model.

    `model` is a `models.t5.T5`, `method` anything with `apply(trained, batch) -> Injection`.
    Dropout is the model's, as its config says; without it no random number is drawn.
    """

    of_injection = injection_loss_fn(model, options)

    def loss_fn(trained, frozen, batch, key):
        return of_injection(method.apply(trained, batch), frozen, batch, key)

    return loss_fn


def model_loss_fn(model: Any, options: losses.LossOptions) -> LossFn:
    """The loss of a model all of whose weights are trained: pre-training and model tuning."""

    def loss_fn(trained, frozen, batch, key):
        del frozen
        return _token_loss(_apply(model, trained, batch, key), batch, options)

    return loss_fn


def _apply(model, params, batch, key, injection=Injection()):
    dropout = model.config.dropout_rate > 0
    rngs = {"dropout": key} if dropout else {}
    variables, injection = injected(params, injection)
    return model.apply(variables, batch, injection, deterministic=not dropout, rngs=rngs)


def _token_loss(
    logits: Float[Array, "batch target vocab"], batch: Batch, options: losses.LossOptions
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    return losses.cross_entropy(
        logits,
        batch["decoder_target_tokens"],
        batch["decoder_loss_weights"],
        z_loss=options.z_loss,
        label_smoothing=options.label_smoothing,
    )


def split_batch(x: Array, parts: int) -> Array:
    """[batch, ...] -> [parts, batch / parts, ...].

    Each part takes every `parts`-th example, so that a batch sharded over devices along its
    first axis stays so in each part, with no example moved between devices.
    """
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
