"""A finished or interrupted run, as Python has it: its scores, its prompt, and their uses."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis.neighbors import Neighbor
from prompt_tuning.checkpoints.adapters.adapter_files import Adapter, best_file
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.predictor import Example, Predictor
from prompt_tuning.json_text import parse_json
from prompt_tuning.recipes import options, prompts, scoring, task_file
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference, literal, resolved
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.predictors import add_trained, make_predictor
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What was trained into a run folder, with its frozen model and its data.

    Attributes:
      folder: the run folder (README.md lists what is in it).
      base: the frozen model.
      data: the task, the lengths in tokens, the batch size.
      prediction: how answers are got.
    """

    folder: Path
    base: Base
    data: Data
    prediction: Prediction

    @functools.cached_property
    def summary(self) -> Mapping[str, Any]:
        """What `summary.json` says.

        Raises:
          UserError: training has not ended.
        """
        return _read_object(RunFolder(self.folder).summary, "training has not ended")

    @property
    def score(self) -> float:
        """The best development score: the mean of the task's metrics, higher being better.

        Raises:
          UserError: nothing has been evaluated.
        """
        return self._best("score")

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of the best evaluation on the development split, by name."""
        return self._best("metrics")

    @property
    def best_step(self) -> int:
        """The step whose prompt scored best."""
        return self._best("best_step")

    def _best(self, name: str) -> Any:
        if self.summary["best_step"] is None:
            raise UserError(f"{self.folder} has no best step: nothing was evaluated in training.")
        return self.summary[name]

    @functools.cached_property
    def adapter(self) -> Adapter:
        """The best that was trained, of whichever method.

        Raises:
          UserError: nothing has been evaluated yet.
        """
        file = best_file(self.folder)
        if file is None:
            raise UserError(f"{self.folder} has no best prompt: its training hasn't got so far.")
        return self.base.load_adapter(str(file))

    @property
    def prompt(self) -> Float32[np.ndarray, "prompt embed"]:
        """The best soft prompt.

        Raises:
          UserError: another method was trained, which has no prompt before the input.
        """
        return self.adapter.prompt

    def predict(self, rows: Sequence[str | Mapping[str, Any]]) -> list[str]:
        """Returns the answer to each text, or to what the task's template makes of a row.

        Where the task has labels, it is the likeliest of them, unless `train` was asked to sample
        or to search by beam; `prompt-tuning infer` gives the same answers.

        Args:
          rows: texts as the model is to read them, or dicts by column. Those longer than the
            task's lengths are cut.

        Raises:
          UserError: a row lacks a column that the task reads.
        """
        if isinstance(rows, str | Mapping):
            raise UserError("predict takes a list of strings or rows; put brackets around one.")
        answers = self._predictor.predict([Example(prompt="", inputs=row) for row in rows])
        return [answer.text for answer in answers]

    @functools.cached_property
    def _predictor(self) -> Predictor:
        found = make_predictor(self.base, self.data, self.prediction)
        add_trained(found, "", self.adapter.injection, self.data, self.prediction)
        return found

    def evaluate(self, split: str | None = None) -> Evaluation:
        """Returns the metrics, the score and the predictions of the best prompt on a split.

        Args:
          split: of the task, such as "test"; None is the development split, whose score comes out
            as training measured it, to the last digit.

        Raises:
          UserError: there is no such split, its labels are withheld, or it was trained on batches.
        """
        if not self.data.tasks:
            raise UserError(
                f"{self.folder} was trained on batches, not on a task; score it on one with "
                "prompt_tuning.evaluate(base, run, task)."
            )
        return scoring.evaluate(
            self.base,
            self.data,
            self.prediction,
            split or self.prediction.split,
            self.adapter.inject,
        )

    def neighbors(
        self, k: int = 5, metric: str = "cosine", *, words: bool = False
    ) -> list[list[Neighbor]]:
        """Returns the `k` vocabulary pieces nearest to each position of the prompt.

        Args:
          k: pieces a position.
          metric: "cosine" (the paper's) or "euclidean".
          words: only pieces with letters or digits, as text.

        Raises:
          UserError: `k` or the metric is out of range, or what was trained is no soft prompt.
        """
        return prompts.neighbors_of(self.base, self.prompt, k=k, metric=metric, words=words)


def load_run(folder: str | Path, base: Base | None = None) -> Run:
    """Returns the run in a folder that `train`, or the command `prompt-tuning train`, wrote.

    Args:
      folder: the run folder.
      base: the frozen model that it was trained on, where that is loaded already; None loads it.

    Raises:
      UserError: it is no run folder, its model is not where it was, or its task is known to gin
        alone.
    """
    path = Path(folder)
    texts = _read_object(path / "settings.json", f"{folder} is no run folder")
    settings = {
        name: literal(text)
        for name, (text, _) in resolved({n: t for n, t in texts.items() if " " not in n}).items()
    }
    recorded = task_file.read(path)
    if recorded is not None:
        settings |= _recorded(settings, recorded)
    if base is None:
        base = options.load_base(settings)
    data = options.data_of(settings)
    prediction = options.prediction_of(settings, data)
    return Run(folder=path, base=base, data=data, prediction=prediction)


def _recorded(settings: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that `task.json` knows better: the labels, and where files are now."""
    found = {}
    tasks = recorded["tasks"]
    if settings.get("data.mixture_or_task") == Reference("@user_files()") and len(tasks) == 1:
        found["user_files.labels"] = tasks[0]["labels"] or []
    for place in recorded.get("paths", {}).values():
        for name, value in settings.items():
            if value == place["given"] and not Path(value).expanduser().exists():
                found[name] = place["place"]
    return found


def _read_object(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"There is no {path}: {otherwise}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}).") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (it holds no object).")
    return found
