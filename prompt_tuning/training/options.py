"""How long a run trains, and how often it logs, evaluates and saves."""

import dataclasses
from typing import Annotated

from prompt_tuning.errors import at_least
from prompt_tuning.settings import Changeable, Free, Mark, PerMember

_OTHER_STEPS = "the best step is picked among other steps than an undisturbed run's"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How long to train and how often to record. Intervals count steps.

    train_steps: updates in all (the paper: 30,000).
    seed: of the data's order and of dropout.
    accumulation_steps: microbatches that a batch is cut into, to fit in memory.
    log_every: each row of losses is the mean over this many steps.
    eval_every: the development set is also evaluated before the first and after the last step.
    checkpoint_every: a checkpoint is also saved after the last step.
    keep_checkpoints: how many of the newest stay on disk.
    patience: stop after this many evaluations in a row without a better score; None: never.
    prefetch_batches: how many batches a thread makes ahead; 0: each one is made when needed.
    tensorboard: write event files.
    wandb_project: log to this Weights & Biases project.
    """

    train_steps: PerMember[Changeable[int]] = 30_000
    seed: PerMember[int] = 0
    accumulation_steps: int = 1
    log_every: Free[int] = 100
    eval_every: Annotated[int, Mark(changeable=True, note=_OTHER_STEPS)] = 1000
    checkpoint_every: Free[int] = 1000
    keep_checkpoints: Free[int] = 2
    patience: PerMember[int | None] = None
    prefetch_batches: Free[int] = 2
    tensorboard: PerMember[Free[bool]] = True
    wandb_project: PerMember[Free[str | None]] = None

    def __post_init__(self):
        names = ("accumulation_steps", "log_every", "eval_every", "checkpoint_every")
        names += ("keep_checkpoints", "patience")
        counts = {f"train.{name}": getattr(self, name) for name in names}
        at_least(1, {"TRAIN_STEPS": self.train_steps, **counts})
        at_least(0, {"train.prefetch_batches": self.prefetch_batches})
