"""Steps of several runs in one program, on one copy of the frozen weights.

    injections = each run's method applied to its own trainable parameters, stacked
    losses = jax.vmap(loss_fn)(injections, batches, keys), all on the same frozen weights

Under `vmap`, a product of activations with a frozen weight stays one product with more rows; only
a method's own computations are separate. Trainable parameters are never padded, so that the
optimizer computes the same as in a single run; `stack_injections` pads the injections.

A program is compiled for a number of rows, one run each, and an input length. Few sizes keep
compilation rare: the concurrency, half of it, a quarter, and so on. A group of runs smaller than
its program leaves rows idle.

`loop.py` uses only `SideBySide` from this module; without it, runs take turns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt32

from prompt_tuning.host_memory import check_memory
from prompt_tuning.models.stacking import stack_injections
from prompt_tuning.training.inputs import Input
from prompt_tuning.training.optimizers import at_rate
from prompt_tuning.training.run import ActiveRun
from prompt_tuning.training.step import (
    Batch,
    ProgramKey,
    StepMetrics,
    TrainState,
    compiler_options,
    sums_and_gradient,
    updated,
)

_POSITIONS_A_CALL = 64
"""Estimated cost of an additional program, in positions of a row; favors few programs."""


def make_side_by_side_step(
    keys: Sequence[ProgramKey], accumulation_steps: int = 1, layout: PyTree = None
) -> Callable[..., tuple[tuple[TrainState, ...], StepMetrics]]:
    """Compiles `(states, frozen, batch, key_data, rates) -> (states, metrics)`.

    `states` has one state per run; `batch`, `key_data` (of the runs' keys) and `rates` (learning
    rates) have a leading `members` axis, as have the metrics of `make_train_step`. Up to rounding,
    each run's results equal those of `make_train_step`; with dropout, only if its inputs aren't
    padded further.

    Args:
      keys: one per run. Their losses are `MethodLoss`es with the same `of_injection`.
      accumulation_steps: as in `make_train_step`.
      layout: as in `make_train_step`, for the tuple of states.
    """
    method_losses: list[Any] = [key.loss_fn for key in keys]

    def loss_fn(trained, frozen, batch, random_keys):
        injections = [
            each.method.apply(parameters, jax.tree.map(lambda x, row=row: x[row], batch))
            for row, (each, parameters) in enumerate(zip(method_losses, trained, strict=True))
        ]
        arrays, injection_of = stack_injections(injections)

        def of_member(arrays, batch, key):
            return method_losses[0].of_injection(injection_of(arrays), frozen, batch, key)

        return jax.vmap(of_member)(arrays, batch, random_keys)

    sums_of = sums_and_gradient(loss_fn, accumulation_steps, several=True)

    def train_step(
        states: tuple[TrainState, ...],
        frozen: PyTree,
        batch: Batch,
        key_data: UInt32[Array | np.ndarray, "members words"],
        rates: Float[Array | np.ndarray, "members"],
    ) -> tuple[tuple[TrainState, ...], StepMetrics]:
        steps = jnp.stack([state.step for state in states])
        run_keys = jax.random.wrap_key_data(jnp.asarray(key_data))
        random_keys = jax.vmap(jax.random.fold_in)(run_keys, steps)
        trained = tuple(state.trained for state in states)
        losses, weights, gradients = sums_of(trained, frozen, batch, random_keys)  # [members] sums

        after: list[Any] = [None] * len(states)
        for rows in _alike(keys, states):
            optimizer = keys[rows[0]].optimizer
            # One vmapped update: the program for sixteen members is as small as for one.
            several = jax.vmap(
                lambda rate, *of_member, optimizer=optimizer: updated(
                    at_rate(optimizer, rate), *of_member
                )
            )(
                jnp.asarray(rates)[jnp.asarray(rows)],
                _stack([states[row] for row in rows]),
                losses[jnp.asarray(rows)],
                weights[jnp.asarray(rows)],
                _stack([gradients[row] for row in rows]),
            )
            for index, row in enumerate(rows):
                after[row] = jax.tree.map(lambda x, index=index: x[index], several)
        return tuple(state for state, _ in after), _stack([metrics for _, metrics in after])

    # No donation: an idle row may reuse a finished run's state.
    return jax.jit(train_step, out_shardings=layout, compiler_options=compiler_options())


def _alike(keys: Sequence[ProgramKey], states: Sequence[TrainState]) -> list[list[int]]:
    """Groups rows with equal optimizers and shapes, which can share one vmapped update."""
    groups: dict[Any, list[int]] = {}
    for row, (key, state) in enumerate(zip(keys, states, strict=True)):
        leaves, structure = jax.tree.flatten(state)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        groups.setdefault((key.optimizer, structure, shapes), []).append(row)
    return list(groups.values())


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


class SideBySide:
    """Runs a step of every training run, computing as few positions as possible.

    Args:
      concurrency: the maximum number of runs at a time.
      target_length: maximum length of the runs' targets, in tokens.
      pad_id: the id of padding in batches.
      frozen: the frozen weights.
      accumulation_steps: number of microbatches per batch.
      layout_of: runs -> `layout` of `make_side_by_side_step`.
      place_batch: puts a batch of [members, batch, length] arrays on the devices.
      flops_of: counts the FLOPs of a program with its arguments.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        target_length: int,
        pad_id: int,
        frozen: PyTree,
        accumulation_steps: int,
        layout_of: Callable[[Sequence[ActiveRun]], PyTree],
        place_batch: Callable[[Batch], Batch],
        flops_of: Callable[..., int],
    ):
        self._sizes = program_sizes(concurrency)
        self._target_length, self._pad_id, self._frozen = target_length, pad_id, frozen
        self._accumulation_steps = accumulation_steps
        self._layout_of, self._place_batch, self._flops_of = layout_of, place_batch, flops_of
        self._programs: dict[tuple[ProgramKey, ...], Any] = {}
        self._prompt_lengths: dict[ProgramKey, int] = {}
        self._rows: list[ActiveRun] = []

    def start_steps(
        self, training: Sequence[ActiveRun], inputs: Mapping[str, Input]
    ) -> Iterator[tuple[StepMetrics, list[tuple[ActiveRun, Any]]]]:
        """Dispatches a step of every training run; yields once per program.

        Args:
          training: the runs.
          inputs: on the host, by run name.

        Yields:
          The metrics of a program, [rows] each, and its runs, each with its row.
        """
        self._arrange(training)
        for group in self._groups(inputs):
            rows, active = list(group), [run for run in group if run in training]
            if _exchangeable(rows):
                rows += active[:1] * (program_size(len(rows), self._sizes) - len(rows))
            program = self._program(rows)
            # An idle row gets another run's batch; its result is discarded.
            batches = [inputs.get(run.name, inputs[active[0].name]).batch for run in rows]
            arguments = (
                tuple(run.state for run in rows),
                self._frozen,
                self._place_batch(stack_batches(batches, self._target_length, self._pad_id)),
                np.stack([run.key_data for run in rows]),
                np.array([0 if run.rate is None else run.rate for run in rows], np.float32),
            )
            check_memory(program, *arguments)
            flops = self._flops_of(program, *arguments) // len(rows)
            states, metrics = program(*arguments)
            steps = [(run, row) for row, run in enumerate(group) if run in training]
            for run, row in steps:
                run.start_step(states[row], inputs[run.name], flops)
            yield metrics, steps

    def _arrange(self, training: Sequence[ActiveRun]) -> None:
        """Assigns a row to each training run.

        In a program with several keys, runs that have ended keep their rows, so that no smaller
        program is compiled. A new run takes the row of one of them, preferably one with its own
        key, which keeps the program the same.
        """
        for new in [run for run in training if run not in self._rows]:
            free = [row for row, run in enumerate(self._rows) if run not in training]
            alike = [row for row in free if self._rows[row].program_key == new.program_key]
            if free:
                self._rows[(alike or free)[0]] = new
            else:
                self._rows.append(new)
        smaller = program_size(len(training), self._sizes) < len(self._rows)
        if smaller or _exchangeable(self._rows):
            self._rows = [run for run in self._rows if run in training]

    def _groups(self, inputs: Mapping[str, Input]) -> list[list[ActiveRun]]:
        """Returns groups of runs, one group per program."""
        if not _exchangeable(self._rows):
            return [self._rows]
        batches = [inputs[run.name].batch for run in self._rows]
        lengths = [np.shape(batch["encoder_input_tokens"])[1] for batch in batches]
        others = self._prompt_length(self._rows[0], batches[0]) + self._target_length
        groups = groups_by_length(lengths, self._sizes, others)
        return [[self._rows[row] for row in group] for group in groups]

    def _prompt_length(self, run: ActiveRun, batch: Batch) -> int:
        """Returns the number of positions that a run's method adds to its inputs."""

        def positions(trained: PyTree) -> Array:
            loss_fn: Any = run.program_key.loss_fn
            injection = loss_fn.method.apply(trained, batch)
            return jnp.zeros(injection.encoder_prompt_length + injection.encoder_suffix_length)

        if run.program_key not in self._prompt_lengths:
            (length,) = jax.eval_shape(positions, run.state.trained).shape
            self._prompt_lengths[run.program_key] = length
        return self._prompt_lengths[run.program_key]

    def _program(self, rows: Sequence[ActiveRun]) -> Any:
        keys = tuple(run.program_key for run in rows)
        if keys not in self._programs:
            self._programs[keys] = make_side_by_side_step(
                keys, self._accumulation_steps, self._layout_of(rows)
            )
        return self._programs[keys]


def _exchangeable(rows: Sequence[ActiveRun]) -> bool:
    """Whether all rows have the same key, so that the program depends only on their number."""
    return len({run.program_key for run in rows}) <= 1


def program_sizes(concurrency: int) -> tuple[int, ...]:
    """Returns the row counts of programs: `concurrency`, half of it ... down to 1, ascending."""
    sizes = [concurrency]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return tuple(reversed(sizes))


def program_size(members: int, sizes: Sequence[int]) -> int:
    """Returns the smallest size that fits this many members."""
    return next(size for size in sizes if size >= members)


def groups_by_length(
    lengths: Sequence[int], sizes: Sequence[int], other_positions: int
) -> list[list[int]]:
    """Groups members into programs, minimizing the total number of positions.

    Padding batches of very different lengths to the longest wastes positions. Dynamic programming
    over the members sorted by length finds the optimum. It depends only on the arguments, so that
    a resumed population is grouped identically.

    Args:
      lengths: each member's input length at this step, in tokens.
      sizes: row counts of programs, ascending.
      other_positions: positions per row in addition to the inputs, such as the prompt.
    """
    order = sorted(range(len(lengths)), key=lambda member: (-lengths[member], member))
    # best[n]: the minimum cost of grouping the n members with the longest inputs, and the start
    # of the last group.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(order) + 1):
        best.append(
            min(
                (
                    best[start][0]
                    + _POSITIONS_A_CALL
                    + program_size(end - start, sizes) * (other_positions + lengths[order[start]]),
                    start,
                )
                for start in range(end)
                if end - start <= sizes[-1]
            )
        )
    groups = []
    end = len(order)
    while end:
        start = best[end][1]
        groups.append(sorted(order[start:end]))
        end = start
    return groups[::-1]


def stack_batches(batches: Sequence[Batch], target_length: int = 0, pad_id: int = 0) -> Batch:
    """Stacks the members' batches into arrays of [members, batch, length], padded to the longest.

    Tokens are padded with `pad_id`, targets to at least `target_length`. The examples' tasks are
    [members, batch].
    """
    stacked = {
        name: _pad_and_stack(
            [np.asarray(batch[name]) for batch in batches],
            target_length if name.startswith("decoder_") else 0,
            pad_id if name.endswith("_tokens") else 0,
        )
        for name in batches[0]
        if name != "task"
    }
    if any("task" in batch for batch in batches):
        # A member with a single task has no "task" in its batches; its index is 0.
        rows = stacked["encoder_input_tokens"].shape[1]
        tasks = np.zeros((len(batches), rows), np.int32)
        for row, batch in zip(tasks, batches, strict=True):
            of_member = np.asarray(batch.get("task", ()))
            row[: len(of_member)] = of_member
        stacked["task"] = tasks
    return stacked


def _pad_and_stack(arrays: Sequence[np.ndarray], length: int, value: int) -> np.ndarray:
    rows, longest = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
    stacked = np.full((len(arrays), rows, max(longest, length)), value, arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: array.shape[0], : array.shape[1]] = array
    return stacked
