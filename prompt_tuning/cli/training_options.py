"""How a run trains: its optimizer and options, and those of many runs at once, as gin has them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import optax

from prompt_tuning.cli.frozen_base import Base
from prompt_tuning.cli.paths import run_folder
from prompt_tuning.cli.registry import register
from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Method
from prompt_tuning.settings import Assigned, Fields, Free, HashedFiles
from prompt_tuning.training import optimizers
from prompt_tuning.training.halving import Halving
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.options import TrainOptions

adafactor = register(optimizers.adafactor)
adamw = register(optimizers.adamw)
constant = register(optimizers.constant)
linear_warmup = register(optimizers.linear_warmup)
rsqrt_decay = register(optimizers.rsqrt_decay)
cosine_decay = register(optimizers.cosine_decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """All that training needs beside the base and the data; pre-training has no method.

    folder: the run's.
    teachers: prompt files, one for each task, to distil with the weight `distillation`.
    """

    folder: Assigned[str]
    method: Callable[[Base], Method] | None
    optimizer: optax.GradientTransformation
    options: Fields[TrainOptions]
    loss: Fields[LossOptions]
    teachers: HashedFiles[Sequence[str] | None] = None
    distillation: float = 0.9

    def __post_init__(self) -> None:
        run_folder(self.folder)

    @property
    def path(self) -> Path:
        """The folder."""
        return run_folder(self.folder)

    def make_method(self, base: Base) -> Method:
        """Returns the method; raises UserError if there is none."""
        if self.method is None:
            raise UserError(
                "train.method is None, as for pre-training; set it, as methods/*.gin do."
            )
        return self.method(base)


train: Callable[..., Training] = register(Training, name="train")
"""A training run; `TrainOptions`, `LossOptions` and `Training` say what the options are."""


@register
def population(places: Free[int] = 16, side_by_side: Free[bool | None] = None) -> tuple[int, bool]:
    """How the members of a POPULATION train.

    Args:
      places: how many at a time; the others wait.
      side_by_side: compute their steps in one program, or one after another; None: in one program
        but on a single CPU, where that is no faster (`benchmarks/population.py`).

    Returns:
      `places` and `side_by_side`, resolved.
    """
    if side_by_side is None:
        side_by_side = jax.default_backend() != "cpu" or jax.device_count() > 1
    return places, side_by_side


successive_halving: Callable[..., Halving] = register(Halving, name="successive_halving")
"""Where `train --tune` drops members; see `Halving`."""
