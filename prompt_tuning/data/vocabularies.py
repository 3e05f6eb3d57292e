"""The vocabulary: a SentencePiece model on disk plus T5's sentinels, with or without TensorFlow.

`Vocabulary` needs only the `sentencepiece` package, so that decoding, prompts made from label
words and reading cached token ids start in milliseconds. Its ids are those of
`seqio.SentencePieceVocabulary(path, extra_ids)`, which `Vocabulary.seqio()` returns for the
SeqIO tasks of `seqio_tasks.py`.

T5 reserves id 0 for padding (also the decoder's start), 1 for end of sequence and 2 for unknown;
its `extra_ids` sentinels of span corruption, `<extra_id_0>` and so on, are not in the file but
appended by code, numbered down from the last id (Raffel et al., 2020, section 3.1.4).
"""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, SupportsInt

import numpy as np
import sentencepiece
from jaxtyping import Int
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
T5_EXTRA_IDS = 100


def vocabulary_hash(path: str | Path) -> str:
    """Returns the sha256 of the SentencePiece file, which names a vocabulary in metadata."""
    return hashlib.sha256(_read(Path(path))).hexdigest()


class Vocabulary:
    """A SentencePiece vocabulary with T5's special ids.

    Args:
        path: a SentencePiece model file.
        extra_ids: how many sentinels to append (T5: 100).

    Raises:
        UserError: the file is missing, is no SentencePiece model, or was trained with other
            special ids than T5's.
    """

    def __init__(self, path: str | Path, extra_ids: int = T5_EXTRA_IDS):
        self.path = Path(path)
        self.extra_ids = extra_ids
        self._processor = _load(self.path, extra_ids)

    def __len__(self) -> int:
        """Number of ids, sentinels included (T5: 32,100; its embedding table has 32,128 rows)."""
        return self._processor.get_piece_size()

    @functools.cached_property
    def hash(self) -> str:
        """The sha256 of the file."""
        return vocabulary_hash(self.path)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without end of sequence."""
        return self._processor.encode(text)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text of `ids` up to the first end of sequence; padding is nothing."""
        kept = []
        for id_ in map(int, ids):
            if id_ == EOS_ID:
                break
            # The embedding table is wider than the vocabulary, so a model may say such an id.
            kept.append(id_ if id_ < len(self) else UNK_ID)
        return self._processor.decode(kept)

    def piece(self, id_: SupportsInt) -> str:
        """Returns one piece as it is written in the vocabulary, "▁" marking a word's start."""
        id_ = int(id_)
        return self._processor.id_to_piece(id_) if id_ < len(self) else f"<unused_{id_}>"

    def check_labels(self, labels: Iterable[str]) -> None:
        """Checks that the model can say each label: that it is the text of its own ids.

        Raises:
            UserError: one is not, so every answer generated in its place would count as wrong.
        """
        for label in labels:
            said = self.decode(self.encode(label))
            if said != label:
                raise UserError(
                    f"The label {label!r} comes back from the vocabulary {self.path} as {said!r}, "
                    "so no prediction could equal it; choose another word for it in the task."
                )

    def encode_labels(self, labels: Sequence[str]) -> Int[np.ndarray, "labels target"]:
        """Returns each label word's ids with end of sequence, padded to the longest.

        Raises:
            UserError: as `check_labels`.
        """
        self.check_labels(labels)
        rows = [self.encode(label) + [EOS_ID] for label in labels]
        padded = np.full((len(rows), max(map(len, rows))), PAD_ID, np.int32)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = ids
        return padded

    def seqio(self) -> "seqio.SentencePieceVocabulary":
        """Returns the same vocabulary for SeqIO; imports TensorFlow."""
        from prompt_tuning.data.quiet_tensorflow import seqio

        return seqio.SentencePieceVocabulary(str(self.path), self.extra_ids)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"Vocabulary file {path} cannot be read ({error.strerror}); expected a SentencePiece "
            "model (T5's own is at gs://t5-data/vocabs/cc_all.32000/sentencepiece.model)."
        ) from error


@functools.lru_cache(maxsize=8)
def _load(path: Path, extra_ids: int) -> sentencepiece.SentencePieceProcessor:
    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(_read(path))  # pyright: ignore[reportAttributeAccessIssue]
        # Later pieces have higher ids, so the sentinels go in from the last to the first. The
        # leading "▁" makes each stand at a word's start.
        for i in reversed(range(extra_ids)):
            model.pieces.add(
                piece=f"▁<extra_id_{i}>", score=0.0, type=model.SentencePiece.USER_DEFINED
            )
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except UserError:
        raise
    except Exception as error:  # protobuf and SentencePiece raise several unrelated kinds
        raise UserError(
            f"Vocabulary file {path} is not a SentencePiece model ({str(error).splitlines()[0]})."
        ) from error
    special = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if special != (PAD_ID, EOS_ID, UNK_ID):
        raise UserError(
            f"Vocabulary {path} has pad, eos, unk ids {special}; T5 needs (0, 1, 2). Train it with "
            "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1."
        )
    return processor
