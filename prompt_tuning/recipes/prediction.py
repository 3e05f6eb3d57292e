"""How answers are got."""

import dataclasses

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.decoding import DecodingOptions
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.settings import Fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """How answers are got: by rank classification over the task's labels, else by decoding.

    Attributes:
      split: what is scored, where nothing else is asked for.
      decoding: its `max_length` is in tokens with end of sequence.
      seed: for sampling.
      length_normalization: whether a label's log-likelihood is divided by its tokens.
      calibration: a content-free input, the scores after which are subtracted; None: nothing is.
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

    An answer has at most as many tokens as the data's targets if `max_length` is None; a sentinel
    before it isn't counted. The last two correct the scores of labels; see
    `evaluation/rank.py`. `calibration` is the text of an input without content, such as '' or
    'N/A', or what the task's template makes of nothing.
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
