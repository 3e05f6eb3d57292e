"""How alike the prompts of two tasks are, which foretells how well one transfers to the other.

SPoT (Vu et al., 2022, section 4.1) takes a task's prompt for an embedding of the task, and starts a
new task's prompt from that of the most similar one. `prompts` are [prompt, embed] arrays; any two
lengths may be compared.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Array, Float

from prompt_tuning.errors import UserError

Prompt = Float[Array | np.ndarray, "_ _"]


def cosine_of_means(first: Prompt, second: Prompt) -> float:
    """Returns the cosine of the prompts' mean vectors ("cosine similarity of average tokens")."""
    return float(np.dot(*(_unit(np.asarray(p, np.float64).mean(axis=0)) for p in (first, second))))


def mean_of_cosines(first: Prompt, second: Prompt) -> float:
    """Returns the mean cosine of each vector of one with each of the other ("per-token")."""
    units = [_unit(np.asarray(prompt, np.float64)) for prompt in (first, second)]
    return float(np.mean(units[0] @ units[1].T))


SIMILARITIES: Mapping[str, Callable[[Prompt, Prompt], float]] = {
    "cosine_of_means": cosine_of_means,
    "mean_of_cosines": mean_of_cosines,
}
"""The paper's two measures, by name."""


def most_similar_first(
    target: Prompt, sources: Mapping[str, Prompt], similarity: str = "cosine_of_means"
) -> dict[str, float]:
    """Returns the similarity of each source to the target, by name, the most similar first.

    Raises:
      UserError: there is no such measure, no source, or a source is of another width.
    """
    if similarity not in SIMILARITIES:
        raise UserError(
            f"Prompts are compared by {' or '.join(SIMILARITIES)}, not by '{similarity}'."
        )
    if not sources:
        raise UserError("There are no source prompts to choose from; set SOURCE_PROMPTS.")
    for name, prompt in sources.items():
        if prompt.shape[1] != target.shape[1]:
            raise UserError(
                f"The prompt {name} is {prompt.shape[1]} wide, and that of the target task "
                f"{target.shape[1]}; compare prompts of one model."
            )
    measure = SIMILARITIES[similarity]
    found = {name: measure(target, prompt) for name, prompt in sources.items()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scales vectors to length 1; zeros, which have no direction, stay zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)
