"""TensorFlow, SeqIO and TFDS, imported in this one place and without their start-up lines.

Importing this costs about six seconds and 800 MB, so modules import it inside the functions
that prepare data; whatever reads prepared data never does.
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Drops what native code writes to standard error; Python exceptions still come out.

    TensorFlow reports missing CUDA drivers before its own log level is in force.
    """
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
with _native_stderr_closed():
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    # The accelerator belongs to JAX; TensorFlow would otherwise reserve all of its memory.
    tf.config.set_visible_devices([], "GPU")

# TFDS retries ten times with waits that double: 200 seconds where there is no network.
downloader.MAX_RETRIES = 3

__all__ = ["seqio", "tf", "tfds"]
