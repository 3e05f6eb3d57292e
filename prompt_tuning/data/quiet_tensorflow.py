"""Imports TensorFlow, SeqIO and TFDS, without their start-up messages.

Importing this takes about six seconds and 800 MB, so modules import it inside functions that
prepare data. Reading prepared data doesn't need it.
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Discards native code's output to stderr; Python exceptions are still printed.

    TensorFlow reports missing CUDA drivers before its own log level takes effect.
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

    # Otherwise TensorFlow would reserve all of the accelerator's memory, which JAX needs.
    tf.config.set_visible_devices([], "GPU")

# By default, TFDS retries ten times with doubling waits: 200 seconds without a network.
downloader.MAX_RETRIES = 3

__all__ = ["seqio", "tf", "tfds"]
