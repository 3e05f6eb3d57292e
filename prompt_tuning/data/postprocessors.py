"""Normalizes predicted texts for metrics, by the rules of T5's postprocessors."""

import re
import string
from collections.abc import Sequence

_DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which "
    "whose your".split()
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def label_index(text: str, labels: Sequence[str]) -> int:
    """Returns the index of the label that equals `text`, or -1."""
    return labels.index(text) if text in labels else -1


def names_referent(prediction: str, referent: str) -> bool | None:
    """Returns whether a WSC prediction names the referent, or None if it names nothing.

    Case and determiners are ignored, and one may have more words ("the old man", "man").
    A possessive and a plain noun differ: "Bob" is not "Bob's hat".
    """
    predicted, wanted = _content_words(prediction), _content_words(referent)
    if not any(predicted):
        return None
    if ("'" in prediction) != ("'" in referent):
        return False
    return predicted <= wanted or wanted <= predicted


def _content_words(text: str) -> set[str]:
    # Split at single spaces, as in T5: two spaces leave an empty "word".
    words = [word for word in text.strip().lower().split(" ") if word not in _DETERMINERS]
    return set(words or [""])


def normalize_answer(text: str) -> str:
    """Normalizes an answer as SQuAD's and ReCoRD's official scripts do.

    Lower case, no ASCII punctuation, no articles, single spaces (Rajpurkar et al., 2016).
    """
    text = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())
