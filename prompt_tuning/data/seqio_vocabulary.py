"""A SeqIO vocabulary that wraps ours, if SeqIO lacks that kind; imports TensorFlow."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.quiet_tensorflow import seqio, tf


class CalledVocabulary(seqio.Vocabulary):
    """A SeqIO vocabulary that calls Python for each text, also in `tf.data` pipelines.

    `vocabulary`, a `Vocabulary`, includes its sentinels, so SeqIO adds none.
    """

    def __init__(self, vocabulary: Any):
        super().__init__(extra_ids=0)
        self._vocabulary = vocabulary

    @property
    def eos_id(self) -> int:
        return self._vocabulary.eos_id

    @property
    def bos_id(self) -> None:
        return None

    @property
    def unk_id(self) -> int:
        return self._vocabulary.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return len(self._vocabulary)

    def _encode(self, s: str) -> Sequence[int]:
        return self._vocabulary.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self._vocabulary.decode(ids)

    def _encode_tf(self, s: Any) -> Any:
        def encode(text: Any) -> np.ndarray:
            text = np.asarray(text).item().decode()  # a 0-d array, or bytes in a pipeline
            return np.array(self._vocabulary.encode(text), np.int32)

        return tf.ensure_shape(
            tf.numpy_function(encode, [tf.convert_to_tensor(s)], tf.int32), [None]
        )

    def _decode_tf(self, ids: Any) -> Any:
        return tf.numpy_function(self._vocabulary.decode, [ids], tf.string)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CalledVocabulary) and self._vocabulary is other._vocabulary
