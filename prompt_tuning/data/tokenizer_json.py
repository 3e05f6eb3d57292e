"""Hugging Face's `tokenizer.json`, the only vocabulary file that `transformers` 5 writes.

T5's is Unigram, those of decoder-only models are BPE. The `tokenizers` package (the extra `hf`)
reads it, so that ids are those of `transformers`.
"""

import functools
import hashlib
import importlib.util
import itertools
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsInt

from prompt_tuning.data import hub_tokens
from prompt_tuning.data.vocabularies import EOS_ID, PAD_ID, UNK_ID, Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.json_text import shown

if TYPE_CHECKING:
    import seqio

_SPECIAL = {"pad_token": (PAD_ID, "<pad>"), "eos_token": (EOS_ID, "</s>")}


class TokenizerVocabulary(Vocabulary):
    """The vocabulary of a `tokenizer.json`.

    Args:
      path: the file; `tokenizer_config.json` in the same folder names its special tokens.

      Raises:
        UserError: the file is damaged, isn't Unigram, or has other special ids than T5's; or
          `tokenizers` isn't installed.
    """

    def __init__(self, path: FilePath):
        self.path = path
        model = dict(hub_tokens.read_json(path).get("model") or {})
        kind = model.get("type")
        if kind != "Unigram":
            raise UserError(
                f"{path} is a vocabulary of type {shown(kind)}; expected Unigram, as in T5, or BPE."
            )
        self._tokenizer = _loaded(path)
        self.extra_ids = 0
        self._check_special(model.get("unk_id"))
        pieces = self._tokenizer.get_vocab(with_added_tokens=True)
        self._size = max(pieces.values()) + 1
        numbers = (
            (re.fullmatch(r"▁?<extra_id_(\d+)>", piece), id_) for piece, id_ in pieces.items()
        )
        sentinels = {int(number[1]): id_ for number, id_ in numbers if number}
        added = {id_ for id_ in self._tokenizer.get_added_tokens_decoder() if id_ > UNK_ID}
        self._added = {
            id_: self.piece(id_).removeprefix("▁") for id_ in added | set(sentinels.values())
        }
        self.num_pieces = min([*self._added, self._size])
        self.first_sentinel = sentinels.get(0, self._size - 1)
        # Sentinels are those from the first on whose ids decrease by one.
        self.num_sentinels = next(
            i for i in itertools.count() if sentinels.get(i) != self.first_sentinel - i
        )

    def _check_special(self, unk_id: Any) -> None:
        config = hub_tokens.read_json(self.path.parent / hub_tokens.TOKENIZER_CONFIG)
        found = {"unk_token": unk_id}
        for name, (_, default) in _SPECIAL.items():
            token = config.get(name) or default
            token = token.get("content") if isinstance(token, dict) else token
            found[name] = self._tokenizer.token_to_id(str(token))
        special = (found["pad_token"], found["eos_token"], found["unk_token"])
        if special != (PAD_ID, EOS_ID, UNK_ID):
            raise UserError(
                f"{self.path} has pad, eos, unk ids {shown(special)}; T5 needs (0, 1, 2)."
            )

    def __len__(self) -> int:
        """Returns the number of ids, including sentinels and added tokens."""
        return self._size

    @functools.cached_property
    def hash(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without end of sequence."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _has(self, id_: int) -> bool:
        return self._tokenizer.id_to_token(id_) is not None

    def _text(self, ids: list[int]) -> str:
        kept = [id_ for id_ in ids if id_ != PAD_ID]
        return self._tokenizer.decode(kept, skip_special_tokens=False)

    def piece(self, id_: SupportsInt) -> str:
        """Returns the piece of an id, with "▁" marking a word's start."""
        piece = self._tokenizer.id_to_token(int(id_))
        return f"<unused_{int(id_)}>" if piece is None else piece

    def seqio(self) -> "seqio.Vocabulary":
        """Returns the same vocabulary for SeqIO; imports TensorFlow."""
        from prompt_tuning.data.seqio_vocabulary import CalledVocabulary

        return CalledVocabulary(self)

    def _files(self) -> dict[str, bytes]:
        files = (self.path, self.path.parent / hub_tokens.TOKENIZER_CONFIG)
        return {file.name: file.read_bytes() for file in files if file.exists()}


class BPEVocabulary(TokenizerVocabulary):
    """The vocabulary of a decoder-only model's `tokenizer.json`.

    Inputs begin with what the tokenizer puts before each text, and don't end. Padding is -1, which
    is no token's: these models have no padding, or end sequences with it.

    Args:
      path: the file; `tokenizer_config.json` in the same folder names the token that ends a
        sequence, or `config.json` has its id.

      Raises:
        UserError: the file is damaged, or neither file has such a token; or `tokenizers` isn't
          installed.
    """

    pad_id = -1
    ends_inputs = False

    def __init__(self, path: FilePath):
        self.path = path
        self._tokenizer = _loaded(path)
        self.extra_ids = self.num_sentinels = 0
        self._added = {}
        self._size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.num_pieces = self._tokenizer.get_vocab_size(with_added_tokens=False)
        self.first_sentinel = self._size - 1
        self.eos_id = self.unk_id = self._end()
        before = self._tokenizer.encode("", add_special_tokens=True).ids
        self.bos_id = next((id_ for id_ in before if id_ != self.eos_id), None)

    def _end(self) -> int:
        """Returns the id that ends a sequence."""
        folder = self.path.parent
        token = hub_tokens.read_json(folder / hub_tokens.TOKENIZER_CONFIG).get("eos_token")
        token = token.get("content") if isinstance(token, dict) else token
        found = self._tokenizer.token_to_id(str(token))
        if found is None:
            found = hub_tokens.read_json(folder / "config.json").get("eos_token_id")
            found = found[0] if isinstance(found, list) and found else found
        if type(found) is not int or not 0 <= found < self._size:
            raise UserError(
                f"{self.path} doesn't say which token ends a sequence; expected an eos_token of "
                f"the vocabulary in {hub_tokens.TOKENIZER_CONFIG} next to it, found {shown(token)}."
            )
        return found

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the text of `ids` up to the first end of sequence, without special tokens."""
        whole = itertools.takewhile(
            lambda id_: id_ not in (self.eos_id, self.pad_id), map(int, ids)
        )
        # A model may output other ids: the embedding table has more rows.
        return self._tokenizer.decode([*filter(self._has, whole)], skip_special_tokens=True)


def read_tokenizer(path: FilePath) -> TokenizerVocabulary:
    """Returns the vocabulary of a `tokenizer.json`; raises UserError as its class does."""
    kind = dict(hub_tokens.read_json(path).get("model") or {}).get("type")
    return BPEVocabulary(path) if kind == "BPE" else TokenizerVocabulary(path)


def _loaded(path: FilePath) -> Any:
    """Returns the `tokenizers.Tokenizer`, without truncation and padding."""
    if importlib.util.find_spec("tokenizers") is None:
        raise UserError(
            f"Reading {path} needs the package tokenizers: pip install tokenizers, or put the "
            "model's spiece.model next to it."
        )
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(path.read_bytes())
    except Exception as error:  # the library raises nothing more specific
        raise UserError(f"Can't read {path}: {' '.join(str(error).split())}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
