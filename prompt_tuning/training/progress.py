"""The progress of a run: what a checkpoint holds besides arrays.

JSON values, exact to the last digit, so that a resumed run continues from the same state.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prompt_tuning.training.early_stopping import Best


@dataclasses.dataclass(kw_only=True)
class Progress:
    """Everything but arrays that changes during a run.

    Attributes:
      best: the best evaluation so far.
      seconds: of all processes that have trained this run.
      metrics_offset: where `metrics.jsonl` ended, in bytes.
      window: sums since the last row of losses, so that a run stopped between two rows writes the
        same next row once it resumes.
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
        """Returns the window's means, the loss being that of a token, and starts another.

        None if no step was made since the last one.
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
        """Reads `to_json` back."""
        return cls(**{**values, "best": Best(**values["best"])})
