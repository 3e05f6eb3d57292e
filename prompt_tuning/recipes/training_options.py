"""How a run trains: its method, optimizer and options."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import optax

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Method
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.paths import run_folder
from prompt_tuning.settings import Assigned, Fields, HashedFiles
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.options import TrainOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Training options besides the base and the data; pre-training has no method.

    folder: the run's.
    teachers: prompt files, one for each task, to distill with the weight `distillation`.
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
