"""The vocabulary: SentencePiece (T5, mT5, Flan-T5) or bytes (ByT5), with or without TensorFlow.

`Vocabulary` needs only the `sentencepiece` package, so that decoding, prompts from label words and
reading cached token ids start in milliseconds. Its ids are those of
`seqio.SentencePieceVocabulary(path, extra_ids)`, which `Vocabulary.seqio()` returns for the
SeqIO tasks of `seqio_tasks.py`; `ByteVocabulary` likewise corresponds to `seqio.ByteVocabulary`.
`find_vocabulary` finds one by its path, in a checkpoint's folder, in a bucket, or by the name of a
shipped one. `tokenizer_json.py` reads folders with only a `tokenizer.json`.

T5 reserves id 0 for padding (also the decoder's start), 1 for end of sequence and 2 for unknown.
Other models have other ids, which are the vocabulary's. T5's inputs end with end of sequence; those
of decoder-only models and of T5Gemma don't, and most begin with a token of their own.
The ids of span corruption's sentinels, `<extra_id_0>` and so on, count down from the last id
(Raffel et al., 2020, section 3.1.4). T5's file doesn't contain them, so code appends them; mT5's
does; ByT5 reuses the last hundred byte ids (Xue et al., 2022, section 3.1). Tokens that a Hugging
Face folder adds come after them.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, SupportsInt

import numpy as np
import sentencepiece
from jaxtyping import Int
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.buckets import check_reachable
from prompt_tuning.data import hub_tokens
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, atomic_write
from prompt_tuning.json_text import shown

if TYPE_CHECKING:
    import seqio

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
T5_EXTRA_IDS = 100

BYTES = "byt5"
"""The name of ByT5's vocabulary, which has no file, in place of a path."""

HUB_FILE = "spiece.model"
GEMMA_FILE = "tokenizer.model"
BYT5_CLASS = "ByT5Tokenizer"
_NUM_BYTES = 256
_FIRST_BYTE = 3
T5_FILE = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"


def vocabulary_hash(path: str | Path) -> str:
    """Returns the SHA-256 of the SentencePiece file, which identifies a vocabulary in metadata."""
    return hashlib.sha256(_read(as_vocabulary_path(path))).hexdigest()


def shipped_vocabularies() -> dict[str, Path]:
    """Returns the files of the vocabularies in the package by name, the file's stem."""
    folder = Path(str(resources.files("prompt_tuning") / "assets"))
    return {file.stem: file for file in folder.rglob("*.model")}


class Vocabulary:
    """A SentencePiece vocabulary.

    Args:
      path: a SentencePiece model file, on disk or in a bucket; or the name of a shipped one.
        For Hugging Face's `spiece.model` and `tokenizer.model`, the folder's number of sentinels
        and its added tokens are read too, and whether inputs begin with a token of their own.
      extra_ids: number of sentinels to append. None for the folder's number; without one, for 0
        if the file contains sentinels, as mT5's does, or is a `tokenizer.model`, else for T5's 100.

      Raises:
        UserError: the file is missing, isn't a SentencePiece model, or was trained with other
          special ids than T5's and no padding; or an added token has the id of another piece.

    Attributes:
      pad_id: the id of padding; MADLAD-400's is in the `config.json` of the folder. -1, which is no
        token's, in a `tokenizer.model` without padding: batches are padded with it nonetheless.
      eos_id: the id of end of sequence.
      unk_id: the id of unknown text.
      bos_id: the id that begins inputs, as in Gemma; None if none does, as in T5.
      ends_inputs: whether end of sequence ends inputs, as in T5.
    """

    pad_id, eos_id, unk_id = PAD_ID, EOS_ID, UNK_ID
    bos_id: int | None = None
    ends_inputs = True

    def __init__(self, path: str | FilePath, extra_ids: int | None = None):
        self.path = as_vocabulary_path(path)
        check_reachable(self.path)
        folder = self.path.parent if self.path.name in (HUB_FILE, GEMMA_FILE) else None
        default = None if folder is None else hub_tokens.extra_ids(folder)
        if default is None and self.path.name == GEMMA_FILE:
            default = 0
        self._processor, self.extra_ids, in_file = _load(self.path, extra_ids, default)
        self.pad_id, self.eos_id, self.unk_id = _special_ids(self._processor, self.path)
        bos_id = self._processor.bos_id()
        if folder is not None and hub_tokens.begins_inputs(folder) and bos_id >= 0:
            self.bos_id, self.ends_inputs = bos_id, False
        size = self._processor.get_piece_size()
        self.num_pieces = size - self.extra_ids - in_file
        """The number of ids of text, which come before sentinels and added tokens."""
        self.num_sentinels = size - self.num_pieces
        """The number of ids that span corruption may use as sentinels."""
        self.first_sentinel = size - 1
        """The id of `<extra_id_0>`; those of the others count down from it."""
        self._added = {} if folder is None else self._beyond(hub_tokens.added_tokens(folder))

    def _beyond(self, tokens: Mapping[int, str]) -> dict[int, str]:
        """Returns the tokens that aren't pieces of the model, by id."""
        size = self._processor.get_piece_size()
        for id_, token in tokens.items():
            piece = self._processor.id_to_piece(id_) if id_ < size else token
            if token not in (piece, piece.removeprefix("▁")):
                raise UserError(
                    f"The files next to {self.path} give the token {shown(token)} the id {id_}, "
                    f"but that is the id of the vocabulary's own piece {shown(piece)}."
                )
        return {id_: token for id_, token in tokens.items() if id_ >= size}

    def __len__(self) -> int:
        """Returns the number of ids, sentinels included (T5: 32,100; its table has 32,128 rows)."""
        return max(self._processor.get_piece_size(), *(id_ + 1 for id_ in self._added), 0)

    @functools.cached_property
    def hash(self) -> str:
        """The SHA-256 of the file, and of any additions to it."""
        digest = hashlib.sha256(_read(self.path))
        if self._added:
            digest.update(json.dumps(sorted(self._added.items())).encode())
        return digest.hexdigest()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without end of sequence."""
        if not self._added:
            return self._processor.encode(text)
        ids_of = {token: id_ for id_, token in self._added.items()}
        # The longest first: a token may be a prefix of another.
        tokens = "|".join(map(re.escape, sorted(ids_of, key=len, reverse=True)))
        ids = []
        for part in re.split(f"({tokens})", text):
            ids += [ids_of[part]] if part in ids_of else self._processor.encode(part)
        return ids

    def encode_inputs(self, text: str, length: int | None = None) -> tuple[list[int], bool]:
        """Returns the ids of `text` as the model's input, and whether they were truncated.

        Args:
          text: the input.
          length: maximum number of ids; None for no limit.
        """
        ids = self.encode(text)
        before = [] if self.bos_id is None else [self.bos_id]
        after = [self.eos_id] if self.ends_inputs else []
        kept = ids if length is None else ids[: length - len(before) - len(after)]
        return [*before, *kept, *after], len(kept) < len(ids)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text of `ids` up to the first end of sequence, without padding.

        Added tokens are surrounded by spaces.
        """
        texts, run = [], []
        for id_ in map(int, ids):
            if id_ in (self.eos_id, -1):
                break
            if id_ in self._added:
                texts += [self._text(run), self._added[id_]]
                run = []
            else:
                # A model may output other ids: the embedding table has more rows.
                run.append(id_ if self._has(id_) else self.unk_id)
        return " ".join(filter(None, [*texts, self._text(run)]))

    def _has(self, id_: int) -> bool:
        """Returns whether the vocabulary, without added tokens, has an id."""
        return id_ < self._processor.get_piece_size()

    def _text(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def piece(self, id_: SupportsInt) -> str:
        """Returns the piece of an id, with "▁" marking a word's start."""
        id_ = int(id_)
        if id_ in self._added:
            return self._added[id_]
        return self._processor.id_to_piece(id_) if self._has(id_) else f"<unused_{id_}>"

    def can_spell(self, text: str) -> bool:
        """Returns whether a text survives encoding and decoding, so that a model can output it."""
        return self.decode(self.encode(text)) == text

    def check_labels(self, labels: Iterable[str]) -> None:
        """Checks that each label survives encoding and decoding.

        Raises:
          UserError: one doesn't, so that generated answers would never equal it.
        """
        for label in labels:
            if not self.can_spell(label):
                decoded = self.decode(self.encode(label))
                raise UserError(
                    f"The label {label!r} becomes {decoded!r} when the vocabulary {self.path} "
                    "encodes and decodes it, so no prediction could equal it; choose another "
                    "word for it in the task."
                )

    def encode_labels(self, labels: Sequence[str]) -> Int[np.ndarray, "labels target"]:
        """Returns each label's ids with end of sequence, padded to the longest.

        Raises:
          UserError: as `check_labels`.
        """
        self.check_labels(labels)
        rows = [self.encode(label) + [self.eos_id] for label in labels]
        padded = np.full((len(rows), max(map(len, rows))), self.pad_id, np.int32)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = ids
        return padded

    def seqio(self) -> "seqio.Vocabulary":
        """Returns the same vocabulary for SeqIO; imports TensorFlow."""
        from prompt_tuning.data.quiet_tensorflow import seqio
        from prompt_tuning.data.seqio_vocabulary import CalledVocabulary

        if self._added:
            return CalledVocabulary(self)
        return seqio.SentencePieceVocabulary(str(self.path), self.extra_ids)

    def save(self, folder: FilePath, *, fix: str) -> None:
        """Writes it into a folder, in which `find_vocabulary` and Hugging Face find it.

        Args:
          folder: an existing folder.
          fix: how to fix a failure to write, as for `atomic_write`.

        Raises:
          UserError: a file can't be written.
        """
        for name, content in self._files().items():
            with atomic_write(folder / name, fix=fix) as file:
                file.write(content)

    def _files(self) -> dict[str, bytes]:
        if self.path.name == GEMMA_FILE:
            config = {"add_bos_token": self.bos_id is not None}
            return {GEMMA_FILE: _read(self.path), hub_tokens.TOKENIZER_CONFIG: _json(config)}
        config = {"tokenizer_class": "T5Tokenizer", "extra_ids": self.extra_ids}
        files = {HUB_FILE: _read(self.path), hub_tokens.TOKENIZER_CONFIG: _json(config)}
        if self._added:
            tokens = {token: id_ for id_, token in self._added.items()}
            files[hub_tokens.ADDED_TOKENS] = _json(tokens)
        return files


class ByteVocabulary(Vocabulary):
    """ByT5's vocabulary: the bytes of the text in UTF-8, from id 3 (Xue et al., 2022).

    Its sentinels have no ids of their own: span corruption uses the last byte ids.
    """

    def __init__(self):
        self.path = Path(BYTES)
        self.extra_ids = 0
        self.num_pieces = len(self)
        self.num_sentinels = T5_EXTRA_IDS
        self.first_sentinel = len(self) - 1
        self._added = {}

    def __len__(self) -> int:
        """Returns the number of ids, 259; ByT5's embedding table has 384 rows."""
        return _FIRST_BYTE + _NUM_BYTES

    @functools.cached_property
    def hash(self) -> str:
        """A hash that identifies these ids, in place of a file's."""
        return hashlib.sha256(b"bytes of UTF-8 from id 3; 0 padding, 1 end, 2 unknown").hexdigest()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without end of sequence."""
        return [byte + _FIRST_BYTE for byte in text.encode()]

    def _has(self, id_: int) -> bool:
        return id_ < len(self)

    def _text(self, ids: list[int]) -> str:
        """Returns the text without special ids and invalid UTF-8, as in SeqIO."""
        return bytes(i - _FIRST_BYTE for i in ids if i >= _FIRST_BYTE).decode(errors="ignore")

    def piece(self, id_: SupportsInt) -> str:
        """Returns an ASCII character unchanged, and another byte as "<0xE9>"."""
        id_ = int(id_)
        if id_ < _FIRST_BYTE:
            return ("<pad>", "</s>", "<unk>")[id_]
        if id_ >= len(self):
            return f"<unused_{id_}>"
        byte = id_ - _FIRST_BYTE
        return chr(byte) if chr(byte).isascii() and chr(byte).isprintable() else f"<0x{byte:02X}>"

    def seqio(self) -> "seqio.Vocabulary":
        """Returns the same vocabulary for SeqIO; imports TensorFlow."""
        from prompt_tuning.data.quiet_tensorflow import seqio

        return seqio.ByteVocabulary()

    def _files(self) -> dict[str, bytes]:
        return {hub_tokens.TOKENIZER_CONFIG: _json({"tokenizer_class": BYT5_CLASS})}


def as_vocabulary_path(path: str | FilePath) -> FilePath:
    """Returns the shipped file of that name, or a path."""
    return as_path(shipped_vocabularies().get(str(path), path))


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _read(path: FilePath) -> bytes:
    try:
        return path.read_bytes()
    except Exception as error:  # a bucket's client has its own exceptions
        if not isinstance(error, OSError) and isinstance(path, Path):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"Vocabulary file {path} cannot be read ({reason}); expected a SentencePiece "
            f"model (T5's own is at {T5_FILE})."
        ) from error


@functools.lru_cache(maxsize=8)
def _load(
    path: FilePath, extra_ids: int | None, default: int | None
) -> tuple[sentencepiece.SentencePieceProcessor, int, int]:
    """Returns the model, the number of sentinels appended to it, and the number in its file.

    `default` is the number to append if `extra_ids` is None and the file contains none.
    """
    content = _read(path)
    try:
        model = sentencepiece_model_pb2.ModelProto.FromString(content)  # pyright: ignore[reportAttributeAccessIssue]
        in_file = sum("<extra_id_" in piece.piece for piece in model.pieces)
        if extra_ids is None:
            extra_ids = 0 if in_file else T5_EXTRA_IDS if default is None else default
        # Later pieces have higher ids, so sentinels are appended from the last to the first. The
        # leading "▁" makes each start a word.
        for i in reversed(range(extra_ids)):
            model.pieces.add(
                piece=f"▁<extra_id_{i}>", score=0.0, type=model.SentencePiece.USER_DEFINED
            )
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except Exception as error:  # protobuf and SentencePiece raise various types
        raise UserError(
            f"Vocabulary file {path} is not a SentencePiece model ({str(error).splitlines()[0]})."
        ) from error
    return processor, extra_ids, in_file


def _special_ids(
    processor: sentencepiece.SentencePieceProcessor, path: FilePath
) -> tuple[int, int, int]:
    """Returns the ids of padding, end of sequence and unknown text.

    A file without padding gets the id that the model in the same folder masks, if there is one.
    """
    special = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if special[0] < 0 and path.name == HUB_FILE:
        pad_id = hub_tokens.read_json(path.parent / "config.json").get("pad_token_id")
        if type(pad_id) is int and 0 <= pad_id < processor.get_piece_size():
            special = (pad_id, *special[1:])
    if min(special[path.name == GEMMA_FILE :]) < 0:
        raise UserError(
            f"Vocabulary {path} has pad, eos, unk ids {special}; T5 needs (0, 1, 2). Train it with "
            "--pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1."
        )
    return special
