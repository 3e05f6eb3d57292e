"""One training step: a pure function from state, frozen weights and batch to the next state.

The step is generic in `loss_fn(trained, frozen, batch, key)`. It differentiates with respect to
`trained` only, so no gradient or optimizer state of the frozen weights' size exists. The same step
pre-trains or fully fine-tunes a model, with all its weights in `trained`.

Losses are in `losses.py`, optimizers in `optimizers.py`; `loop.py` does input and output.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from prompt_tuning.models.injection import ROUTER, Injection, RoutedPrompts, injected
from prompt_tuning.training import losses
from prompt_tuning.training.optimizers import AnyRate, Optimizer, at_rate

Batch = dict[str, Any]
"""Arrays under SeqIO's names, each with a leading `batch` axis."""

LossFn = Callable[[Any, Any, Batch, Array], tuple[Array, Array]]
"""(trained, frozen, batch, key) -> (sum of the tokens' losses, sum of their weights)."""

StepMetrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All arrays that change during training.

    Fields are annotated as trees, because they may also contain shapes or shardings.

    Attributes:
      step: number of updates made, an int32 scalar.
      trained: the trainable parameters, as a method's `init` returns them.
      opt_state: their optax state.
    """

    step: PyTree
    trained: PyTree
    opt_state: PyTree

    @classmethod
    def create(cls, trained: PyTree, optimizer: optax.GradientTransformation) -> "TrainState":
        """Returns the state before the first step."""
        return cls(
            step=jnp.zeros((), jnp.int32),
            trained=trained,
            opt_state=optimizer.init(trained),
        )


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation | AnyRate,
    accumulation_steps: int = 1,
    layout: PyTree = None,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Compiles `(state, frozen, batch, key, rate=None) -> (state, metrics)`.

    `key` is the run's key, the same at every step: the step folds in its own index, so that a
    resumed run samples the same random numbers as an uninterrupted one. The batch is split into
    `accumulation_steps` microbatches, whose gradients are summed before the update; the batch size
    must be divisible by it. The old state's memory is donated to the new one.

    Don't call the step inside another jitted function: on CPU it has `compiler_options`, which JAX
    rejects there.

    Args:
      loss_fn: differentiated with respect to its first argument only.
      optimizer: from optax. An `AnyRate` takes this step's learning rate as the argument `rate`,
        so that runs with different learning rates share one program.
      accumulation_steps: number of microbatches per batch.
      layout: on several devices, the shardings of the state and the metrics: one for all, or a
        pair of trees. If None, XLA may shard them in any way.

    Returns:
      The compiled step. Its metrics are float32 scalars: `loss` (mean over the batch's weights, in
      nats), `weight_sum` (target tokens), `gradient_norm` and `update_norm`. If training diverges,
      one of them is NaN or infinite.
    """
    sums_of = sums_and_gradient(loss_fn, accumulation_steps)

    def train_step(state, frozen, batch, key, rate=None):
        key = jax.random.fold_in(key, state.step)
        return updated(at_rate(optimizer, rate), state, *sums_of(state.trained, frozen, batch, key))

    return jax.jit(
        train_step, donate_argnums=0, out_shardings=layout, compiler_options=compiler_options()
    )


def sums_and_gradient(
    loss_fn: LossFn, accumulation_steps: int, *, several: bool = False
) -> Callable[[PyTree, PyTree, Batch, Key[Array, "..."]], tuple[Array, Array, PyTree]]:
    """Returns `(trained, frozen, batch, key) -> (loss_sum, weight_sum, gradient of loss_sum)`.

    Args:
      loss_fn: of a batch or a microbatch.
      accumulation_steps: number of microbatches, computed one after another.
      several: whether `loss_fn` computes the losses of several members: both sums, the key and all
        arrays of the batch then have a leading `members` axis. The losses are summed. The gradient
        with respect to a member's parameters is that of its own loss, because no other loss
        depends on them.
    """
    split = functools.partial(split_batch, parts=accumulation_steps)
    fold_in = jax.random.fold_in
    if several:
        split, fold_in = jax.vmap(split, out_axes=1), jax.vmap(fold_in, in_axes=(0, None))

    def total(trained, frozen, batch, key):
        losses, weights = loss_fn(trained, frozen, batch, key)
        return (jnp.sum(losses) if several else losses), (losses, weights)

    def of_batch(trained, frozen, batch, key):
        (_, sums), gradient = jax.value_and_grad(total, has_aux=True)(trained, frozen, batch, key)
        return *sums, gradient

    def of_microbatches(trained, frozen, batch, key):
        def add_microbatch(totals, item):
            index, microbatch = item
            sums = of_batch(trained, frozen, microbatch, fold_in(key, index))
            return jax.tree.map(jnp.add, totals, sums), None

        zeros = jnp.zeros(key.shape)  # [members], or a scalar
        start = (zeros, zeros, jax.tree.map(jnp.zeros_like, trained))
        # Arrays of [accumulation_steps, batch / accumulation_steps, ...], or with `members` second.
        parts = (jnp.arange(accumulation_steps), jax.tree.map(split, batch))
        return jax.lax.scan(add_microbatch, start, parts)[0]

    return of_batch if accumulation_steps == 1 else of_microbatches


def compiler_options() -> dict[str, Any]:
    """Returns XLA's options for compiling a step on JAX's default platform.

    On CPU, XLA schedules for concurrency by default, and copies every layer's weights out of their
    stack in advance. The memory-optimized schedule is as fast and needs less memory (T5 1.1 Small
    on two cores: 513 MB of workspace instead of 666).
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
    """Returns the next state and the step's metrics; `gradient` is that of `loss_sum`."""
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
"""(injection, frozen, batch, key) -> the same sums as `LossFn`."""


@dataclasses.dataclass(frozen=True)
class MethodLoss:
    """The loss of a frozen model with a method's injection: a `LossFn` in two parts.

    Attributes:
      method: has `apply(trained, batch) -> Injection`, like a `methods.base.Method`.
      of_injection: computes the loss of a frozen model with an injection.
    """

    method: Any
    of_injection: InjectionLossFn

    def __call__(
        self, trained: PyTree, frozen: PyTree, batch: Batch, key: Array
    ) -> tuple[Array, Array]:
        """Returns the sums of the losses and of the weights."""
        return self.of_injection(self.method.apply(trained, batch), frozen, batch, key)


def injection_loss_fn(model: Any, options: losses.LossOptions) -> InjectionLossFn:
    """Returns a function that computes the loss of a frozen `models.t5.T5` with an injection.

    The dropout rate is `model.compute.dropout_rate`; if it is 0, no random numbers are sampled.
    """

    def loss_fn(injection, frozen, batch, key):
        return _token_loss(_apply(model, frozen, batch, key, injection), batch, options)

    return loss_fn


def prompt_loss_fn(model: Any, method: Any, options: losses.LossOptions) -> MethodLoss:
    """Returns a function that computes the loss of a method's injection into a frozen model."""
    return MethodLoss(method, injection_loss_fn(model, options))


def model_loss_fn(model: Any, options: losses.LossOptions) -> LossFn:
    """Returns a function that computes a model's loss, with all its weights in `trained`."""
    model = _with_plain_attention(model)

    def loss_fn(trained, frozen, batch, key):
        del frozen
        return _token_loss(_apply(model, trained, batch, key), batch, options)

    return loss_fn


def _apply(model, params, batch, key, injection=Injection()):
    model = differentiable(model, injection)
    dropout = model.compute.dropout_rate > 0
    rngs = {"dropout": key} if dropout else {}
    if isinstance(injection.encoder_prompt_mixture, RoutedPrompts):
        rngs[ROUTER] = key
    variables, injection = injected(params, injection)
    return model.apply(variables, batch, injection, deterministic=not dropout, rngs=rngs)


def differentiable(model: Any, injection: Injection) -> Any:
    """Returns a model that can be differentiated with respect to the injection.

    Flash attention gives position biases no gradient.
    """
    trains_bias = any("relpos_bias" in name for name in injection.weights)
    return _with_plain_attention(model) if trains_bias else model


def _with_plain_attention(model: Any) -> Any:
    return model.clone(compute=dataclasses.replace(model.compute, attention="plain"))


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
    """Splits an array into microbatches: [batch, ...] -> [parts, batch / parts, ...].

    Each part takes every `parts`-th example, so that a batch sharded along its first axis stays
    sharded in each part, and no example moves between devices.
    """
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)


@dataclasses.dataclass(frozen=True)
class ProgramKey:
    """The key of a step's compiled program, which runs with equal keys share.

    Attributes:
      loss_fn: if a `MethodLoss`, its method has no initializers.
      optimizer: without its learning rate, if that can be an argument of the step.
    """

    loss_fn: LossFn
    optimizer: optax.GradientTransformation | AnyRate

    @classmethod
    def of(cls, loss_fn: LossFn, optimizer: optax.GradientTransformation) -> "ProgramKey":
        """Returns the key of a run with this loss and optimizer."""
        if isinstance(loss_fn, MethodLoss):
            loss_fn = dataclasses.replace(loss_fn, method=_as_it_computes(loss_fn.method))
        if isinstance(optimizer, Optimizer):
            return cls(loss_fn, optimizer.any_rate)
        return cls(loss_fn, optimizer)


def _as_it_computes(method: Any) -> Any:
    """Returns a method without its initializers, which are functions and never compare equal."""
    if not hasattr(method, "clone"):  # a `Bound` one
        return dataclasses.replace(method, method=_as_it_computes(method.method))
    fields = dataclasses.fields(method)
    return method.clone(
        **{field.name: field.default for field in fields if field.name.endswith("initializer")}
    )
