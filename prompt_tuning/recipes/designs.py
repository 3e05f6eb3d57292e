"""Text prompts of a task, zero- and few-shot, scored on the frozen model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prompt_tuning.analysis.tables import Table
from prompt_tuning.data.designs import SHOTS, Design, designed, read_designs
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import as_path
from prompt_tuning.models.injection import Injection
from prompt_tuning.recipes import scoring
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.paths import shipped_configs
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.training.run import Evaluation

TRAINING = "train"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """A text prompt and its score.

    Attributes:
      shots: requested number of solved examples.
      fitted: mean number of solved examples that fit before a question.
    """

    design: str
    shots: int
    fitted: float
    evaluation: Evaluation

    def to_json(self) -> dict[str, str | int | float]:
        """Returns the fields to print as JSON."""
        return {
            "design": self.design,
            "shots": self.shots,
            "fitted_shots": self.fitted,
            **self.evaluation.metrics,
            "score": self.evaluation.score,
        }


class Designs:
    """The designs of a task, and the model to score them on.

    Args:
      data: the task.
      prediction: how to predict if labels aren't ranked.
      load_base: loads the frozen model, when the first design is scored.
      templates: a TOML file of designs; None is the shipped file for the task.
      names: use only these designs of the file.
      shots: numbers of solved training examples before the question.
      seed: seed for sampling those examples.
      generate: generate answers even if the task has labels to rank.

    Raises:
      UserError: the data are a mixture, or the file lacks the designs; or as `designed`.
    """

    def __init__(
        self,
        data: Data,
        prediction: Prediction,
        load_base: Callable[[], Base],
        *,
        templates: str | None = None,
        names: Sequence[str] | None = None,
        shots: Sequence[int] = (0,),
        seed: int = 0,
        generate: bool = False,
    ):
        self._task, *others = data.tasks
        if others:
            raise UserError(
                f"{data.name} is a mixture of {len(data.tasks)} tasks; a design is for one task: "
                "give the gin file of one, such as tasks/superglue_rte.gin."
            )
        self._data, self._shots, self._seed = data, shots, seed
        rank = bool(self._task.labels) and not generate
        self._prediction = dataclasses.replace(prediction, rank=rank)
        self.designs = _chosen(find_designs(self._task.name, templates), names)
        self.split = prediction.split
        self._load_base = functools.cache(load_base)

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task.name

    def candidates(self) -> list[tuple[Design, int]]:
        """Returns all combinations of designs and numbers of solved examples."""
        shots = dict.fromkeys(self._shots)
        return [(design, k) for design in self.designs.values() for k in shots]

    def score_all(self, split: str) -> list[Scored]:
        """Scores all candidates on a split, and prints each score."""
        candidates, scored = self.candidates(), []
        for number, (design, shots) in enumerate(candidates, start=1):
            found = self.score(design, shots, split)
            say(
                f"[{number}/{len(candidates)}] {design.name}, {shots} shots: "
                f"score {found.evaluation.score:.4f}"
            )
            scored.append(found)
        return scored

    def score(self, design: Design, shots: int, split: str) -> Scored:
        """Scores a text prompt on a split; reports solved examples that don't fit."""
        if split == TRAINING:
            raise UserError(
                "A prompt can't be scored on the training split, the source of its solved "
                "examples; give --split validation or test."
            )
        base = self._load_base()
        limit = self._data.lengths["inputs"]
        task = designed(
            self._task,
            design,
            shots=shots,
            seed=self._seed,
            data_dir=self._data.data_dir,
            fits=lambda text: len(base.vocabulary.encode(text)) < limit,  # and end of sequence
        )
        data: Data = dataclasses.replace(self._data, tasks=(task,))
        splits = load_splits(base, data, split)
        if scoring.withheld(splits):
            raise UserError(
                f"The labels of {self.task}'s {split} split are withheld, so a prompt can't be "
                "scored on it; use the validation split."
            )
        fitted = np.array([row[SHOTS] for row in splits[0].metadata])
        if short := int(np.sum(fitted < shots)):
            say(
                f"{design.name}, {shots} shots: {short} of {len(fitted)} questions have room for "
                f"fewer shots in {limit} tokens, {fitted.mean():.1f} on average "
                "(TASK_FEATURE_LENGTHS)."
            )
        score = scoring.scorer(base, data, self._prediction, splits)
        return Scored(
            design=design.name,
            shots=shots,
            fitted=float(fitted.mean()),
            evaluation=score(lambda batch: Injection()),
        )


def find_designs(task: str, path: str | None) -> Mapping[str, Design]:
    """Returns the designs of a task from the given file, or from the shipped file for the task.

    Raises:
      UserError: there are none, or the file can't be read.
    """
    shipped = sorted((shipped_configs() / "designs").glob("*.toml"))
    files = [as_path(path)] if path else shipped
    known: list[str] = []
    for file in files:
        designs = read_designs(file)
        if found := designs.get(task):
            return found
        known += designs
    where = path or "The shipped template files"
    have = "has" if path else "have"
    raise UserError(
        f"{where} {have} no designs for "
        f"{task}{'' if path else '; give --templates FILE'}.{did_you_mean(task, known)}"
    )


def _chosen(designs: Mapping[str, Design], names: Sequence[str] | None) -> dict[str, Design]:
    for name in names or ():
        if name not in designs:
            raise UserError(
                f"Unknown design '{name}'; expected "
                f"{', '.join(designs)}.{did_you_mean(name, designs)}"
            )
    return {name: designs[name] for name in dict.fromkeys(names or designs)}


def table(scored: Sequence[Scored]) -> Table:
    """Returns a table of text prompts and their scores."""
    metrics = list(scored[0].evaluation.metrics)
    return Table(
        title="",
        columns=("design", "shots", "fitted", *metrics, "score"),
        rows=[
            (
                each.design,
                each.shots,
                f"{each.fitted:.1f}",
                *(float(each.evaluation.metrics[name]) for name in metrics),
                float(each.evaluation.score),
            )
            for each in scored
        ],
    )
