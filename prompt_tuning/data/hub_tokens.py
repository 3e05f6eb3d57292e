"""What a Hugging Face folder says of its vocabulary beside the SentencePiece model.

`tokenizer_config.json` has the number of sentinels (`extra_ids`) and, since transformers 4.34,
every added token with its id; `added_tokens.json` and `tokenizer.json` have the added tokens too.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from prompt_tuning.errors import UserError
from prompt_tuning.json_text import parse_json, shown

TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED_TOKENS = "added_tokens.json"
TOKENIZER = "tokenizer.json"
_MOST_IDS = 2**20
_SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")


def sentinel_number(piece: str) -> int | None:
    """Returns i of the sentinel `<extra_id_i>`; None for another piece."""
    match = _SENTINEL.fullmatch(piece)
    return None if match is None else int(match[1])


def extra_ids(folder: Path | epath.Path) -> int | None:
    """Returns how many sentinels a folder's tokenizer appends; None where it doesn't say.

    Raises:
        UserError: `extra_ids` is no number of sentinels, or the file is damaged.
    """
    number = read_json(folder / TOKENIZER_CONFIG).get("extra_ids")
    if number is not None and not (type(number) is int and 0 <= number <= _MOST_IDS):
        raise UserError(
            f"{folder / TOKENIZER_CONFIG} has extra_ids={shown(number)}; expected a number of "
            "sentinels."
        )
    return number


def added_tokens(folder: Path | epath.Path) -> dict[int, str]:
    """Returns the tokens that a folder adds to its vocabulary, special ones too, by their ids.

    Raises:
        UserError: two tokens have one id, an id is none, or a file is damaged.
    """
    found: dict[int, str] = {}
    for file, token, id_ in _listed(folder):
        if not isinstance(token, str) or type(id_) is not int or not 0 <= id_ <= _MOST_IDS:
            raise UserError(
                f"{file} gives the token {shown(token)} the id {shown(id_)}; expected a text and a "
                "whole number."
            )
        if found.setdefault(id_, token) != token:
            raise UserError(
                f"{file} gives the id {id_} to {shown(token)}, but it is that of "
                f"{shown(found[id_])}."
            )
    return found


def _listed(folder: Path | epath.Path) -> Iterator[tuple[Any, Any, Any]]:
    """Yields the file, the token and its id as they are written."""
    file = folder / ADDED_TOKENS
    for token, id_ in read_json(file).items():
        yield file, token, id_
    file = folder / TOKENIZER_CONFIG
    tokens = read_json(file).get("added_tokens_decoder")
    for id_, token in tokens.items() if isinstance(tokens, dict) else ():
        yield file, _content(token), int(id_) if id_.isdecimal() else id_
    file = folder / TOKENIZER
    tokens = read_json(file).get("added_tokens")
    for token in tokens if isinstance(tokens, list) else ():
        yield file, _content(token), token.get("id") if isinstance(token, dict) else None


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def read_json(file: Path | epath.Path) -> dict[str, Any]:
    """Returns the object in a file; an empty one where there is no file.

    Raises:
        UserError: the file is no JSON object.
    """
    if not file.exists():
        return {}
    try:
        content = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"Can't read {file}: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Can't read {file}: it holds {shown(content)}, expected a JSON object.")
    return content
