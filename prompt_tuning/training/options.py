"""Number of training steps, and intervals of logging, evaluation and checkpoints."""

import dataclasses
from typing import Annotated

from prompt_tuning.errors import at_least
from prompt_tuning.settings import Changeable, Free, Mark, PerMember

_OTHER_STEPS = "the best step is selected among other steps than in an uninterrupted run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of the training loop; intervals are in steps.

    Attributes:
      train_steps: total number of updates (in the paper, 30,000).
      seed: of the data order and dropout.
      accumulation_steps: number of microbatches that a batch is split into, to save memory.
      log_every: each row of losses is the mean over this many steps.
      eval_every: evaluation interval; also before the first and after the last step.
      checkpoint_every: checkpoint interval; also after the last step.
      keep_checkpoints: number of newest checkpoints to keep.
      patience: stop after this many evaluations without a better score; never if None.
      target_score: stop once the development score is at least this, such as 1.0; never if None.
      prefetch_batches: number of batches that a thread makes ahead; 0 makes each when needed.
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
    target_score: PerMember[float | None] = None
    prefetch_batches: Free[int] = 2
    tensorboard: PerMember[Free[bool]] = True
    wandb_project: PerMember[Free[str | None]] = None

    def __post_init__(self):
        names = ("accumulation_steps", "log_every", "eval_every", "checkpoint_every")
        names += ("keep_checkpoints", "patience")
        counts = {f"train.{name}": getattr(self, name) for name in names}
        at_least(1, {"TRAIN_STEPS": self.train_steps, **counts})
        at_least(0, {"train.prefetch_batches": self.prefetch_batches})
