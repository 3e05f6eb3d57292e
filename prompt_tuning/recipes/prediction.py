"""Prediction options."""

import dataclasses

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.decoding import DecodingOptions
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.settings import Fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction options: rank classification over the task's labels, or decoding.

    Attributes:
      split: the default split to score.
      decoding: decoding options; `max_length` counts tokens including end of sequence.
      seed: for sampling.
      length_normalization: whether to divide a label's log-likelihood by its number of tokens.
      calibration: a content-free input whose scores are subtracted; None subtracts nothing.
    """

    rank: bool
    decoding: DecodingOptions
    split: str
    seed: int
    length_normalization: bool = False
    calibration: str | None = None


def predict(
    data: Data,
    method: str = "greedy",
    split: str = "validation",
    max_length: int | None = None,
    seed: int = 0,
    length_normalization: bool = False,
    calibration: str | None = None,
    *,
    decoding: Fields[DecodingOptions],
) -> Prediction:
    """Evaluation and inference: "greedy", "beam", "sample", or "rank" over the task's labels.

    If `max_length` is None, answers have at most as many tokens as the data's targets, not counting
    a sentinel. `length_normalization` and `calibration` correct the scores of labels; see
    `evaluation/rank.py`. `calibration` is the text of a content-free input, such as '' or 'N/A', or
    the task's template with empty columns.
    """
    methods = ("greedy", "beam", "sample", "rank")
    if method not in methods:
        raise UserError(
            f"predict.method is '{method}'; expected {', '.join(methods[:-1])} or {methods[-1]}."
            f"{did_you_mean(method, methods)}"
        )
    if not isinstance(calibration, str | None):
        raise UserError(
            f"predict.calibration is {calibration!r}; expected a string, such as 'N/A'."
        )
    rank = method == "rank"
    decoding = dataclasses.replace(
        decoding,
        max_length=data.target_length if max_length is None else max_length + data.target_sentinel,
        method="greedy" if rank else method,
    )
    return Prediction(
        rank=rank,
        decoding=decoding,
        split=split,
        seed=seed,
        length_normalization=length_normalization,
        calibration=calibration,
    )
