"""The paper's optimizer, its alternatives, and learning-rate schedules, all through optax.

Adafactor (Shazeer & Stern 2018, arXiv 1804.04235) as Lester et al. (2021) used it in T5X: no first
moment, no scaling by the parameter's scale, updates clipped to a root mean square of 1, second
moments factored only if the two largest dimensions are both at least 128. Pre-training uses T5's
settings: scaled by the parameter's scale, with `rsqrt_decay`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32

from prompt_tuning.errors import UserError, listed
from prompt_tuning.settings import Mark, PerMember

_OTHER_RATES = "the steps so far had other learning rates than in an uninterrupted run"

Schedule = optax.Schedule
"""Maps the number of updates made so far to a learning rate."""


@dataclasses.dataclass(frozen=True)
class AnyRate:
    """An optimizer whose learning rate is an argument of each update.

    Attributes:
      make: the optax function.
      options: its arguments except the learning rate, by name.
      scheduled: whether the learning rate was a schedule, which changes the optimizer's state.
    """

    make: Callable[..., optax.GradientTransformation]
    options: tuple[tuple[str, Any], ...]
    scheduled: bool


def at_rate(
    optimizer: optax.GradientTransformation | AnyRate, rate: Any
) -> optax.GradientTransformation:
    """Returns an `AnyRate` with this learning rate, or any other optimizer unchanged."""
    if not isinstance(optimizer, AnyRate):
        return optimizer
    return optimizer.make(
        (lambda count: rate) if optimizer.scheduled else rate, **dict(optimizer.options)
    )


class Optimizer(optax.GradientTransformation):
    """An optax optimizer that can be rebuilt with another learning rate.

    Runs that train together (`loop.py`) share a program that takes the learning rate as an
    argument.

    Attributes:
      make: the optax function.
      learning_rate: its first argument, a constant or a schedule.
      options: its other arguments, by name.
    """

    make: Callable[..., optax.GradientTransformation]
    learning_rate: float | Schedule
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        make: Callable[..., optax.GradientTransformation],
        learning_rate: float | Schedule,
        **options: Any,
    ) -> "Optimizer":
        """Returns `make(learning_rate, **options)`, and stores the arguments."""
        if not callable(learning_rate):
            _check_rate(learning_rate)
        self = cls(*make(learning_rate, **options))
        self.make, self.learning_rate, self.options = make, learning_rate, options
        return self

    @property
    def any_rate(self) -> AnyRate:
        """This optimizer without its learning rate."""
        scheduled = callable(self.learning_rate)
        return AnyRate(self.make, tuple(sorted(self.options.items())), scheduled)

    def rates(self, steps: int) -> Float32[np.ndarray, "steps"]:
        """Returns the learning rates of the first `steps` updates."""
        value = self.learning_rate
        if not callable(value):
            return np.full(steps, value, np.float32)
        each = jax.vmap(lambda count: jnp.asarray(value(count), jnp.float32))
        return np.asarray(each(jnp.arange(steps)))


def _check_rate(value: float) -> None:
    if not value > 0:
        raise UserError(f"LEARNING_RATE is {value}; it must be above 0.")


def _extended(
    make: Callable[..., optax.GradientTransformation],
) -> Callable[..., optax.GradientTransformation]:
    """Returns `make` with the arguments `max_gradient_norm` and `rate_factors`."""

    def extended(
        learning_rate: Any,
        *,
        max_gradient_norm: float | None,
        rate_factors: tuple[tuple[str, float], ...],
        **options: Any,
    ) -> optax.GradientTransformation:
        steps = [make(learning_rate, **options)]
        if max_gradient_norm is not None:
            steps.insert(0, optax.clip_by_global_norm(max_gradient_norm))
        if rate_factors:
            steps.append(_scaled_by_name(rate_factors))
        return steps[0] if len(steps) == 1 else optax.chain(*steps)

    return extended


_ADAFACTOR, _ADAMW = _extended(optax.adafactor), _extended(optax.adamw)


def _scaled_by_name(factors: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiplies the updates of parameters by the factor of the first pattern that they match."""

    def factor(path: tuple[Any, ...]) -> float:
        return next((value for pattern, value in factors if fnmatchcase(_name(path), pattern)), 1.0)

    def init(params: optax.Params) -> optax.EmptyState:
        names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for pattern, _ in factors:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(
                    f"rate_factors has '{pattern}', which no trained parameter matches; they are "
                    f"{listed(names)}."
                )
        return optax.EmptyState()

    def update(updates: optax.Updates, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        scaled = jax.tree_util.tree_map_with_path(lambda path, x: factor(path) * x, updates)
        return scaled, state

    return optax.GradientTransformation(init, update)


def _name(path: tuple[Any, ...]) -> str:
    """Returns a trained parameter's "/"-joined name, without the collection of its method."""
    return "/".join(str(getattr(key, "key", key)) for key in path).removeprefix("params/")


def adafactor(
    learning_rate: PerMember[float | Schedule] = 0.3,
    *,
    decay_rate: float = 0.8,
    clipping_threshold: float = 1.0,
    weight_decay: float = 1e-5,
    multiply_by_parameter_scale: bool = False,
    min_dim_size_to_factor: int = 128,
    max_gradient_norm: float | None = None,
    rate_factors: Mapping[str, float] | None = None,
) -> Optimizer:
    """Adafactor; the defaults are the paper's.

    At update `t`, counted from 1, with `v` the running mean (factored or not) of the squared
    gradient with decay `1 - t**-decay_rate`, a parameter `p` is updated by

        u = g / sqrt(v);  u = u / max(1, rms(u) / clipping_threshold)
        p = (1 - weight_decay) * p - learning_rate * u * scale

    where `scale` is 1, or `max(rms(p), 1e-3)` if `multiply_by_parameter_scale`. The learning rate
    doesn't scale the weight decay. Before, gradients with a larger global norm than
    `max_gradient_norm` are scaled down to it (Pascanu et al. 2013). Adafactor's first update
    doesn't depend on the gradients' scale, so clipping only weighs later ones against each other.

    `rate_factors` gives parameters learning rates of their own: factors of `learning_rate` by
    name, such as {"up": 0.1}; * matches any text. A factor scales the weight decay too. `init`
    raises UserError if a name matches nothing.
    """
    return Optimizer.of(
        _ADAFACTOR,
        learning_rate,
        decay_rate=decay_rate,
        clipping_threshold=clipping_threshold,
        weight_decay_rate=weight_decay or None,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
        min_dim_size_to_factor=min_dim_size_to_factor,
        momentum=None,
        eps=1e-30,
        max_gradient_norm=max_gradient_norm,
        rate_factors=tuple((rate_factors or {}).items()),
    )


def adamw(
    learning_rate: PerMember[float | Schedule],
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_gradient_norm: float | None = None,
    rate_factors: Mapping[str, float] | None = None,
) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019); the learning rate scales its weight decay.

    `max_gradient_norm` and `rate_factors` are as for `adafactor`.
    """
    return Optimizer.of(
        _ADAMW,
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        max_gradient_norm=max_gradient_norm,
        rate_factors=tuple((rate_factors or {}).items()),
    )


def constant(value: PerMember[float]) -> Schedule:
    """The paper's schedule, at 0.3."""
    _check_rate(value)
    return optax.constant_schedule(value)


def linear_warmup(value: PerMember[float], warmup_steps: PerMember[int]) -> Schedule:
    """Linear warmup to `value` at update `warmup_steps`, then constant."""
    _check_rate(value)
    return lambda count: value * jnp.minimum(1.0, (count + 1) / max(1, warmup_steps))


def rsqrt_decay(value: PerMember[float] = 1.0, warmup_steps: PerMember[int] = 10_000) -> Schedule:
    """T5's pre-training schedule (Raffel et al. 2020, 3.1.2): value / sqrt(max(n, warmup))."""
    _check_rate(value)
    return lambda count: value / jnp.sqrt(jnp.maximum(count + 1.0, warmup_steps))


def cosine_decay(
    value: PerMember[float],
    total_steps: PerMember[Annotated[int, Mark(changeable=True, note=_OTHER_RATES)]],
    *,
    warmup_steps: PerMember[int] = 0,
    final_fraction: PerMember[float] = 0.0,
) -> Schedule:
    """Linear warmup to `value`, then cosine decay to `final_fraction * value`."""
    warmup = linear_warmup(value, warmup_steps)
    decay_steps = max(1, total_steps - warmup_steps)

    def schedule(count):
        progress = jnp.clip((count + 1 - warmup_steps) / decay_steps, 0.0, 1.0)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return warmup(count) * (final_fraction + (1.0 - final_fraction) * cosine)

    return schedule
