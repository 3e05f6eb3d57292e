"""Finds a vocabulary of any kind by its path or name."""

from prompt_tuning.buckets import check_reachable
from prompt_tuning.data import hub_tokens
from prompt_tuning.data.tokenizer_json import read_tokenizer
from prompt_tuning.data.vocabularies import (
    BYT5_CLASS,
    BYTES,
    HUB_FILE,
    T5_FILE,
    ByteVocabulary,
    Vocabulary,
    as_vocabulary_path,
)
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath

_FILES = (HUB_FILE, "sentencepiece.model")
_BPE_FILE = "merges.txt"
_MT5_FILE = "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model"


def find_vocabulary(path: str | FilePath, extra_ids: int | None = None) -> Vocabulary:
    """Returns the vocabulary that a path names.

    Args:
      path: a SentencePiece model file; a `tokenizer.json`; a folder with either, such as
        a checkpoint's; any of them in a bucket (gs://); the name of a shipped vocabulary,
        "tinyworld"; or "byt5".
      extra_ids: number of sentinels to append, as for `Vocabulary`.

      Raises:
        UserError: the folder contains no vocabulary, or the file isn't one.
    """
    if str(path) == BYTES:
        return ByteVocabulary()
    found = as_vocabulary_path(path)
    check_reachable(found)
    if found.is_dir():
        models = [found / name for name in _FILES if (found / name).exists()]
        models = models[:1] or list(found.glob("*.model"))
        if len(models) == 1:
            return Vocabulary(models[0], extra_ids)
        config = hub_tokens.read_json(found / hub_tokens.TOKENIZER_CONFIG)
        if config.get("tokenizer_class") == BYT5_CLASS:
            return ByteVocabulary()
    elif found.suffix != ".json":
        return Vocabulary(path, extra_ids)
    file = found / hub_tokens.TOKENIZER if found.is_dir() else found
    if file.exists():
        return read_tokenizer(file)
    if (found / _BPE_FILE).exists():
        raise UserError(
            f"{found} has a byte-level BPE vocabulary ({_BPE_FILE}), as CodeT5 does, which isn't "
            f"supported; expected SentencePiece ({HUB_FILE}) or {hub_tokens.TOKENIZER}."
        )
    raise UserError(
        f"{found} contains no vocabulary (none of {', '.join(_FILES)}, {hub_tokens.TOKENIZER}); "
        "set VOCABULARY_PATH to the one that the model was pre-trained with (T5 and Flan-T5: "
        f"{T5_FILE}, mT5: {_MT5_FILE}, ByT5: '{BYTES}')."
    )
