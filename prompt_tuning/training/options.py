"""How long a run trains, and how often it logs, evaluates and saves."""

import dataclasses

from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How long and how often. Intervals count steps.

    train_steps: updates to make in all (the paper: 30,000).
    seed: of the order of the data and of dropout.
    accumulation_steps: microbatches a batch is cut into, to fit in memory.
    log_every: a row of losses is the mean over this many steps.
    eval_every: the development set is also evaluated before the first and after the last step.
    checkpoint_every: and after the last step.
    keep_checkpoints: how many of the newest stay on disk.
    patience: stop after this many evaluations in a row without a better score; None: never.
    prefetch_batches: how many batches are made ahead, on a thread; 0: each when it is needed.
    tensorboard: write event files.
    wandb_project: log to this Weights & Biases project.
    """

    train_steps: int = 30_000
    seed: int = 0
    accumulation_steps: int = 1
    log_every: int = 100
    eval_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    patience: int | None = None
    prefetch_batches: int = 2
    tensorboard: bool = True
    wandb_project: str | None = None

    def __post_init__(self):
        for name in (
            "train_steps",
            "accumulation_steps",
            "log_every",
            "eval_every",
            "checkpoint_every",
            "keep_checkpoints",
            "patience",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"TrainOptions.{name} is {value}; it must be at least 1.")
        if self.prefetch_batches < 0:
            raise UserError(
                f"TrainOptions.prefetch_batches is {self.prefetch_batches}; expected 0 or more."
            )
