"""The progress of a run: the part of a checkpoint that isn't arrays.

JSON values without loss of precision, so that a resumed run continues from the same state.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prompt_tuning.training.early_stopping import Best


@dataclasses.dataclass(kw_only=True)
class Progress:
    """All run state except arrays.

    Attributes:
      best: the best evaluation so far.
      seconds: training time so far, across restarts.
      metrics_offset: size of `metrics.jsonl`, in bytes.
      window: sums since the last row of losses, so that a run stopped between two rows writes the
        same next row after it resumes.
    """

    best: Best = dataclasses.field(default_factory=Best)
    seconds: float = 0.0
    metrics_offset: int = 0
    window: dict[str, float] = dataclasses.field(default_factory=dict)

    def add_step(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step (`step.py`) to the window."""
        for name, value in (
            ("steps", 1.0),
            ("loss_sum", metrics["loss"] * metrics["weight_sum"]),
            ("weight_sum", metrics["weight_sum"]),
            ("gradient_norm", metrics["gradient_norm"]),
        ):
            self.window[name] = self.window.get(name, 0.0) + value

    def end_window(self) -> dict[str, float] | None:
        """Returns the window's means, with the loss per token, and starts the next window.

        Returns None if the window has no step.
        """
        window, self.window = self.window, {}
        if not window:
            return None
        return {
            "loss": window["loss_sum"] / window["weight_sum"],
            "gradient_norm": window["gradient_norm"] / window["steps"],
        }

    def to_json(self) -> dict[str, Any]:
        """Returns JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        """Restores the progress from the values of `to_json`."""
        return cls(**{**values, "best": Best(**values["best"])})
