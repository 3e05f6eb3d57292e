"""A finished or interrupted run in the Python API: its scores, adapter and predictions."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from prompt_tuning.analysis.neighbors import Neighbor
from prompt_tuning.buckets import check_reachable
from prompt_tuning.checkpoints.adapters.adapter_files import Adapter, best_file
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.predictor import Example, Predictor
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.json_text import parse_json
from prompt_tuning.recipes import options, prompts, scoring, task_file
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference, literal, resolved
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.predictors import add_trained, make_predictor
from prompt_tuning.recipes.say import shown
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """The results in a run folder, with the frozen model and the data.

    Attributes:
      folder: the run folder; docs/training.md lists its files.
      base: the frozen model.
      data: the task, its lengths in tokens, and the batch size.
      prediction: how to predict.
    """

    folder: FilePath
    base: Base
    data: Data
    prediction: Prediction

    @functools.cached_property
    def summary(self) -> Mapping[str, Any]:
        """The contents of `summary.json`.

        Raises:
          UserError: training has not ended.
        """
        return _read_object(RunFolder(self.folder).summary, "training has not ended")

    @property
    def score(self) -> float:
        """The best development score: the mean of the task's metrics (higher is better).

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
        """The step with the best score."""
        return self._best("best_step")

    def _best(self, name: str) -> Any:
        if self.summary["best_step"] is None:
            raise UserError(f"{self.folder} has no best step: nothing was evaluated in training.")
        return self.summary[name]

    @functools.cached_property
    def adapter(self) -> Adapter:
        """The best adapter, for any method.

        Raises:
          UserError: nothing has been evaluated yet.
        """
        file = best_file(self.folder)
        if file is None:
            raise UserError(
                f"{self.folder} has no best prompt: training hasn't reached its first evaluation."
            )
        return self.base.load_adapter(str(file))

    @property
    def prompt(self) -> Float32[np.ndarray, "prompt embed"]:
        """The best soft prompt.

        Raises:
          UserError: the method has no prompt before the input.
        """
        return self.adapter.prompt

    def predict(self, rows: Sequence[str | Mapping[str, Any]]) -> list[str]:
        """Returns the answer to each text or row, which the task's template formats.

        If the task has labels, the answer is the most likely one, unless the run was trained with
        `predict` "sample" or "beam". `prompt-tuning infer` returns the same answers.

        Args:
          rows: texts as model inputs, or dicts by column. Inputs longer than the task's lengths are
            truncated.

        Raises:
          UserError: a row lacks one of the task's columns.
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

    def evaluate(self, split: str | None = None, *, quiet: bool = False) -> Evaluation:
        """Returns the metrics, the score and the predictions of the best prompt on a split.

        Args:
          split: the task's split, such as "test"; None is the development split, whose score equals
            that of training, bit for bit for a run trained by itself.
          quiet: print nothing.

        Raises:
          UserError: the split doesn't exist, its labels are withheld, or the run was trained on
            batches.
        """
        if not self.data.tasks:
            raise UserError(
                f"{self.folder} was trained on batches, not on a task; score it on one with "
                "prompt_tuning.evaluate(base, run, task)."
            )
        split = split or self.prediction.split
        with shown(not quiet):
            return scoring.evaluate(
                self.base, self.data, self.prediction, split, self.adapter.inject
            )

    def neighbors(
        self, k: int = 5, metric: str = "cosine", *, words: bool = False
    ) -> list[list[Neighbor]]:
        """Returns the `k` vocabulary pieces nearest to each position of the prompt.

        Args:
          k: pieces per position.
          metric: "cosine" (the paper's) or "euclidean".
          words: only pieces with letters or digits, as text.

        Raises:
          UserError: `k` or the metric is invalid, or the method isn't a soft prompt.
        """
        return prompts.neighbors_of(self.base, self.prompt, k=k, metric=metric, words=words)


def load_run(folder: str | FilePath, base: Base | None = None) -> Run:
    """Loads a run from a folder written by `train` or by `prompt-tuning train`.

    Args:
      folder: the run folder.
      base: the run's frozen model, if loaded already; None loads it.

    Raises:
      UserError: it isn't a run folder, its model has moved, or its task is defined only in gin.
    """
    check_reachable(path := as_path(folder))
    texts = _read_object(path / "settings.json", f"{folder} is not a run folder")
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
    """Returns the settings to override from `task.json`: labels and current file locations."""
    found = {}
    tasks = recorded["tasks"]
    if settings.get("data.mixture_or_task") == Reference("@user_files()") and len(tasks) == 1:
        found["user_files.labels"] = tasks[0]["labels"] or []
    for place in recorded.get("paths", {}).values():
        for name, value in settings.items():
            if value == place["given"] and not task_file.absolute(value):
                found[name] = place["place"]
    return found


def _read_object(path: FilePath, otherwise: str) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"There is no {path}: {otherwise}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}).") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (not a JSON object).")
    return found
