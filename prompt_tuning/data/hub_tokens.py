"""Sentinels and added tokens of a Hugging Face folder, which its SentencePiece model lacks.

`tokenizer_config.json` has the number of sentinels (`extra_ids`) and, since transformers 4.34,
every added token with its id; `added_tokens.json` and `tokenizer.json` have the added tokens too.
"""

from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.json_text import parse_json, shown

TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED_TOKENS = "added_tokens.json"
TOKENIZER = "tokenizer.json"


def extra_ids(folder: FilePath) -> int | None:
    """Returns the number of sentinels that a folder's tokenizer appends, or None if unspecified.

    Raises:
      UserError: `extra_ids` isn't a valid number, or the file is damaged.
    """
    number = read_json(folder / TOKENIZER_CONFIG).get("extra_ids")
    if number is not None and not (type(number) is int and number >= 0):
        raise UserError(
            f"{folder / TOKENIZER_CONFIG} has extra_ids={shown(number)}; expected a number of "
            "sentinels."
        )
    return number


def begins_inputs(folder: FilePath) -> bool:
    """Returns whether a folder's tokenizer puts a token of its own before each input."""
    return read_json(folder / TOKENIZER_CONFIG).get("add_bos_token") is True


def added_tokens(folder: FilePath) -> dict[int, str]:
    """Returns the tokens that a folder adds to its vocabulary, including special ones, by id.

    Raises:
      UserError: a file is damaged.
    """
    try:
        decoder = read_json(folder / TOKENIZER_CONFIG).get("added_tokens_decoder", {})
        return {
            **{id_: token for token, id_ in read_json(folder / ADDED_TOKENS).items()},
            **{int(id_): token["content"] for id_, token in decoder.items()},
            **{
                token["id"]: token["content"]
                for token in read_json(folder / TOKENIZER).get("added_tokens", [])
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The added tokens in {folder} have an unexpected layout "
            f"({type(error).__name__}: {error})."
        ) from error


def read_json(file: FilePath) -> dict[str, Any]:
    """Returns the JSON object in a file, or an empty one if there is no file.

    Raises:
      UserError: the file isn't a JSON object.
    """
    if not file.exists():
        return {}
    try:
        content = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"Can't read {file}: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Can't read {file}: it contains {shown(content)}, expected a JSON object.")
    return content
