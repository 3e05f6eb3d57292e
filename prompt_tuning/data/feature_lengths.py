"""Maximum lengths of inputs and targets, in tokens with end of sequence."""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError, did_you_mean

FEATURES: tuple[str, ...] = ("inputs", "targets")


def feature_lengths(
    given: Mapping[str, Any] | None, own: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Returns the maximum lengths of inputs and targets in tokens.

    Args:
      given: the user's, for any of the features.
      own: the task's defaults.

    Raises:
      UserError: a name isn't a feature, a length isn't a positive integer, or one is missing.
    """
    lengths = {**(own or {}), **(given or {})}
    where = f"TASK_FEATURE_LENGTHS is {dict(given or {})}"
    for name, length in lengths.items():
        if name not in FEATURES:
            raise UserError(
                f"{where}: unknown feature {name!r}; expected "
                f"{' and '.join(FEATURES)}.{did_you_mean(str(name), FEATURES)}"
            )
        if isinstance(length, bool) or not isinstance(length, int) or length < 1:
            raise UserError(
                f"{where}: {name} is {length!r}; expected a number of tokens, at least 1."
            )
    missing = [name for name in FEATURES if name not in lengths]
    if missing:
        raise UserError(
            f"{where}: {' and '.join(missing)} missing; expected a length in tokens for both, "
            "such as {'inputs': 512, 'targets': 8}."
        )
    return {name: lengths[name] for name in FEATURES}


def check_label_lengths(labels: Sequence[str], vocabulary: Vocabulary, targets: int) -> None:
    """Checks that each label can be spelled and fits in the targets' length.

    Args:
      labels: the label words.
      vocabulary: the frozen model's.
      targets: maximum length of targets, in tokens with end of sequence.

    Raises:
      UserError: one can't be spelled, or would be truncated.
    """
    vocabulary.check_labels(labels)
    lengths = {label: len(vocabulary.encode(label)) + 1 for label in labels}
    too_long = {label: length for label, length in lengths.items() if length > targets}
    if too_long:
        label, length = next(iter(too_long.items()))
        more = f" (and {len(too_long) - 1} more labels are too long)" if len(too_long) > 1 else ""
        raise UserError(
            f"The label {label!r} has {length} tokens with end of sequence, but targets may have "
            f"only {targets}{more}; set TASK_FEATURE_LENGTHS to "
            f"{{'targets': {max(lengths.values())}}}."
        )
