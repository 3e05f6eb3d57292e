"""One training step of many members at once: one program, one copy of the frozen weights.

    injections = each member's method applied to its own numbers, stacked
    losses = jax.vmap(loss_fn)(injections, batches, keys), all on the same frozen weights

Under `vmap` a product of activations with a frozen weight stays one product, with as many more
rows; only what a method adds is computed apart. The gradient of the sum of the losses by each
member's numbers is that of its own loss alone. Those numbers are never padded, so that an
optimiser sees what it would see in a run of its own; `stack_injections` pads what they turn into.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, UInt32

from prompt_tuning.methods.base import Bound, Method
from prompt_tuning.models.stacking import stack_injections
from prompt_tuning.training.optimizers import Optimizer
from prompt_tuning.training.step import (
    Batch,
    InjectionLossFn,
    StepMetrics,
    TrainState,
    compiler_options,
    split_batch,
    updated,
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What of a member is written into the program; two of one kind may stand in for each other.

    method: as it computes; how its numbers started is left out.
    make, options: the optimiser's, as in `Optimizer`.
    scheduled: whether its learning rate was a schedule, which shows in the optimiser's state.
    """

    method: Method
    make: Callable[..., optax.GradientTransformation]
    options: tuple[tuple[str, Any], ...]
    scheduled: bool

    @classmethod
    def of(cls, method: Method, optimizer: Optimizer) -> "Kind":
        """The kind of a member with this method and optimiser."""
        options = tuple(sorted(optimizer.options.items()))
        scheduled = callable(optimizer.learning_rate)
        return cls(_as_it_computes(method), optimizer.make, options, scheduled)

    def optimizer(self, rate: Array) -> optax.GradientTransformation:
        """The optimiser with the learning rate of one update; the state is a single run's."""
        return self.make((lambda count: rate) if self.scheduled else rate, **dict(self.options))


def _as_it_computes(method: Any) -> Method:
    """Returns a method without its initialisers, functions that no others equal."""
    if isinstance(method, Bound):
        return dataclasses.replace(method, method=_as_it_computes(method.method))
    kind: Any = type(method)
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    defaults = {field.name: field.default for field in fields if field.name.endswith("initializer")}
    return method.clone(**defaults) if defaults else method


def make_population_step(
    loss_fn: InjectionLossFn, accumulation_steps: int = 1
) -> Callable[..., tuple[tuple[TrainState, ...], StepMetrics]]:
    """Compiles `(states, frozen, batch, key_data, rates, *, kinds) -> (states, metrics)`.

    `states`, `kinds`, and along the first axis of every array `batch`, `key_data` (of the members'
    own run keys) and `rates` (learning rates) belong to the members in their order. Metrics are
    those of `make_train_step`, [members] each. What every member gets is what `make_train_step`
    would give it, but for rounding; with dropout, only if its inputs aren't padded further. As
    that one it is a program of its own.
    """

    def sum_of_losses(trained, frozen, batch, keys, kinds):
        injections = [
            kind.method.apply(numbers, jax.tree.map(lambda x, place=place: x[place], batch))
            for place, (kind, numbers) in enumerate(zip(kinds, trained, strict=True))
        ]
        arrays, injection_of = stack_injections(injections)

        def of_member(arrays, batch, key):
            return loss_fn(injection_of(arrays), frozen, batch, key)

        if len(kinds) == 1:
            # Mapped over one member, XLA for CPUs computes a twentieth slower.
            alone = jax.tree.map(lambda x: x[0], (arrays, batch, keys))
            losses, weights = jax.tree.map(lambda x: x[None], of_member(*alone))
        else:
            losses, weights = jax.vmap(of_member)(arrays, batch, keys)
        return jnp.sum(losses), (losses, weights)

    def sums_and_gradient(trained, frozen, batch, keys, kinds):
        (_, (losses, weights)), gradient = jax.value_and_grad(sum_of_losses, has_aux=True)(
            trained, frozen, batch, keys, kinds
        )
        return losses, weights, gradient

    def accumulate(trained, frozen, batch, keys, kinds):
        split = jax.vmap(lambda x: split_batch(x, accumulation_steps), out_axes=1)
        fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, None))

        def add_microbatch(totals, item):
            index, microbatch = item
            sums = sums_and_gradient(trained, frozen, microbatch, fold_in(keys, index), kinds)
            return jax.tree.map(jnp.add, totals, sums), None

        zeros = jnp.zeros(len(kinds))
        start = (zeros, zeros, jax.tree.map(jnp.zeros_like, trained))
        parts = (jnp.arange(accumulation_steps), jax.tree.map(split, batch))
        return jax.lax.scan(add_microbatch, start, parts)[0]

    def population_step(
        states: tuple[TrainState, ...],
        frozen: PyTree,
        batch: Batch,
        key_data: UInt32[Array | np.ndarray, "members words"],
        rates: Float[Array | np.ndarray, "members"],
        *,
        kinds: tuple[Kind, ...],
    ) -> tuple[tuple[TrainState, ...], StepMetrics]:
        steps = jnp.stack([state.step for state in states])
        keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(jnp.asarray(key_data)), steps)
        gradient_of = sums_and_gradient if accumulation_steps == 1 else accumulate
        trained = tuple(state.trained for state in states)
        losses, weights, gradients = gradient_of(trained, frozen, batch, keys, kinds)

        after: list[Any] = [None] * len(states)
        for places in _alike(kinds, states):
            kind = kinds[places[0]]
            # Alike ones together: the program is no longer for sixteen members than for one.
            several = jax.vmap(
                lambda rate, *of_member, kind=kind: updated(kind.optimizer(rate), *of_member)
            )(
                jnp.asarray(rates)[jnp.asarray(places)],
                _stack([states[place] for place in places]),
                losses[jnp.asarray(places)],
                weights[jnp.asarray(places)],
                _stack([gradients[place] for place in places]),
            )
            for row, place in enumerate(places):
                after[place] = jax.tree.map(lambda x, row=row: x[row], several)
        return tuple(state for state, _ in after), _stack([metrics for _, metrics in after])

    return jax.jit(population_step, static_argnames="kinds", compiler_options=compiler_options())


def _alike(kinds: Sequence[Kind], states: Sequence[TrainState]) -> list[list[int]]:
    """Returns the places of the members that can be updated by one mapped function."""
    alike: dict[Any, list[int]] = {}
    for place, (kind, state) in enumerate(zip(kinds, states, strict=True)):
        leaves, structure = jax.tree.flatten(state)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        alike.setdefault((kind, structure, shapes), []).append(place)
    return list(alike.values())


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def stack_batches(batches: Sequence[Batch], target_length: int = 0) -> Batch:
    """Returns the members' batches as one, [members, batch, length], padded to the longest.

    Targets are padded to `target_length` at least. The examples' tasks are [members, batch].
    """
    stacked = {
        name: _pad_and_stack(
            [np.asarray(batch[name]) for batch in batches],
            target_length if name.startswith("decoder_") else 0,
        )
        for name in batches[0]
        if name != "task"
    }
    if any("task" in batch for batch in batches):
        # Of a member that has but one task, batches don't say so.
        rows = stacked["encoder_input_tokens"].shape[1]
        tasks = np.zeros((len(batches), rows), np.int32)
        for place, batch in zip(tasks, batches, strict=True):
            of_member = np.asarray(batch.get("task", ()))
            place[: len(of_member)] = of_member
        stacked["task"] = tasks
    return stacked


def _pad_and_stack(arrays: Sequence[np.ndarray], length: int) -> np.ndarray:
    rows, longest = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
    stacked = np.zeros((len(arrays), rows, max(longest, length)), arrays[0].dtype)
    for place, array in zip(stacked, arrays, strict=True):
        place[: array.shape[0], : array.shape[1]] = array
    return stacked
