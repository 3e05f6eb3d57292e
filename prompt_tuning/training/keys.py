"""Random keys: one stream per purpose, all derived from the run's seed."""

import zlib

import jax
from jaxtyping import Array, Key


def stream_key(seed: int, name: str) -> Key[Array, ""]:
    """Returns the key of a named stream, such as "dropout" or "prompt_init".

    Streams are derived by name, not by the order of splitting, so a new stream doesn't change the
    samples of the others.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
