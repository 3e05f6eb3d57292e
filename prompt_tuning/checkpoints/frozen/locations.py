"""Finds frozen models: shipped with the package, on disk, in a bucket, or on the hub.

load.py detects the format.
"""

import os
import re
from importlib import resources
from pathlib import Path

from etils import epath

from prompt_tuning.buckets import check_reachable
from prompt_tuning.checkpoints.hub import download, is_hub_name
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import FilePath, as_path

SHIPPED_SUFFIX = ".safetensors"
# A model's files to download, including its vocabulary, and those to download only if the former
# don't include weights.
_FILES = [
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "spiece.model",
    "sentencepiece.model",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
]
_TORCH_FILES = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"]
# A model in the hub's cache, `models--google--t5-small-lm-adapt/snapshots/<hash>`.
_SNAPSHOT = re.compile(r"models--(?:.*--)?([^/]+)/snapshots/[^/]+")
# The folder inside a checkpoint, called the item by T5X and Orbax.
_ITEM = re.compile(r"/(state|default)$")


def shipped_models() -> dict[str, Path]:
    """Returns the files of the models in the package, by name (the file's stem)."""
    folder = Path(str(resources.files("prompt_tuning") / "assets" / "tinyworld"))
    return {file.stem: file for file in sorted(folder.glob(f"*{SHIPPED_SUFFIX}"))}


def locate(path_or_name: str | epath.PathLike) -> epath.Path:
    """Returns the file or folder of a frozen model, downloaded if it is on the hub.

    Args:
      path_or_name: a shipped model's name; a local path; a path in a bucket, `gs://...`; or a hub
        name such as `google/t5-small-lm-adapt`, optionally followed by `@` and a revision.

    Raises:
      UserError: no model is found, or the hub or the bucket can't be reached.
    """
    shipped = shipped_models()
    if str(path_or_name) in shipped:
        return epath.Path(shipped[str(path_or_name)])
    path = epath.Path(as_path(path_or_name))
    if _exists(path):
        return path
    if is_hub_name(str(path_or_name)):
        return epath.Path(_from_hub(str(path_or_name)))
    raise UserError(
        f"{str(path)!r} isn't a checkpoint: it is neither a file nor a folder, nor a name such as "
        f"google/t5-small-lm-adapt on the Hugging Face hub, nor a shipped model (those are "
        f"{', '.join(shipped) or 'none'}).{did_you_mean(str(path_or_name), shipped)}"
    )


def model_name(path_or_name: str | epath.PathLike) -> str:
    """Returns the name of a model whose files don't state one, independent of its location.

    Prompts record it. It is the last part of the argument of `locate`: `t5-small-lm-adapt` for
    `google/t5-small-lm-adapt` on the hub, at any revision; for that model in the hub's cache, where
    the last folder's name is a hash; and for a folder of that name, local or in a bucket.
    """
    given = str(path_or_name)
    path = epath.Path(as_path(path_or_name))
    if is_hub_name(given) and not _exists(path):
        return given.partition("@")[0].rpartition("/")[2]
    # Resolve ".", whose name would be empty.
    place = str(path) if "://" in given else os.path.abspath(os.path.expanduser(path))
    if snapshot := _SNAPSHOT.search(place):
        return snapshot.group(1)
    return _ITEM.sub("", place).rstrip("/").rpartition("/")[2]


def same_model(one: str, other: str) -> bool:
    """Whether two names, from the hub, a folder or our gin files, may refer to the same model."""
    return _common_name(one) == _common_name(other)


def _common_name(path_or_name: str) -> str:
    name = model_name(path_or_name).lower().replace("_", "-")
    name = re.sub(r"^t5-v1-1-", "t5-1-1-", name)
    return re.sub(r"^t5-(\w+)-lm-adapt$", r"t5-1-1-lm100k-\1", name)


def _exists(path: epath.Path) -> bool:
    check_reachable(path)
    try:
        return path.exists()
    except Exception as error:  # cloud libraries raise their own errors
        reason = " ".join(str(error).split())
        raise UserError(f"Can't look up {str(path)!r}: {reason}.") from error


def _from_hub(name: str) -> FilePath:
    folder = download(name, _FILES, kind="model")
    if any(folder.glob("model*.safetensors")):
        return folder
    return download(name, _FILES + _TORCH_FILES, kind="model")
