"""The Hugging Face hub: names, downloads and uploads, by `huggingface_hub` (the extra `hf`)."""

import importlib.util
import re
from collections.abc import Sequence
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path

_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_ADAPTER_FILES = (
    *("prompt_best.*", "adapter_best.safetensors"),  # ours
    *("adapter_config.json", "adapter_model.*"),  # PEFT's
)


def is_hub_name(text: str) -> bool:
    """Whether a text may be a name on the hub: OWNER/NAME, optionally with @REVISION."""
    return _NAME.fullmatch(text) is not None and not text.startswith(".")


def download(name: str, files: Sequence[str], *, kind: str) -> FilePath:
    """Downloads files of a repository to the hub's cache; returns their folder.

    Args:
      name: OWNER/NAME, optionally followed by @ and a revision.
      files: patterns.
      kind: of the repository, for messages.

    Raises:
      UserError: `huggingface_hub` isn't installed, or can't provide the repository.
    """
    hub = _library(
        f"{name!r} is neither a file nor a folder here; to download a {kind} of that name from the "
        "Hugging Face hub"
    )
    repository, _, revision = name.partition("@")
    try:
        folder = hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=list(files)
        )
    except Exception as error:  # from HTTP, the file system, and the hub's library
        raise UserError(
            f"{name!r} is neither a file nor a folder here, and the Hugging Face hub can't "
            f"provide a {kind} of that name ({_reason(error)})."
        ) from error
    return as_path(folder)


def adapter_path(path: FilePath) -> FilePath:
    """Returns the path of an adapter, downloaded if it is a name on the hub.

    A path in an existing folder is no such name, but perhaps a typing mistake.
    """
    name = str(path)
    if not is_hub_name(name) or path.exists() or path.parent.exists():
        return path
    return download(name, _ADAPTER_FILES, kind="prompt")


def upload(folder: FilePath, repository: str, *, private: bool) -> str:
    """Uploads a folder's files to a repository, created if there is none; returns its URL.

    Raises:
      UserError: `huggingface_hub` isn't installed, or the hub refuses.
    """
    if not is_hub_name(repository) or "@" in repository:
        raise UserError(f"Repository {repository!r} is no hub name; expected OWNER/NAME.")
    hub = _library(f"To upload to {repository} on the Hugging Face hub")
    try:
        api = hub.HfApi()
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=str(folder))
    except Exception as error:  # from HTTP and the hub's library
        raise UserError(
            f"The Hugging Face hub doesn't take {repository} ({_reason(error)}). Log in with "
            "`hf auth login`, as a user who may write to it."
        ) from error
    return str(url)


def card_header(**fields: Any) -> str:
    """Returns the YAML header of a model card; fields are those of the hub's `ModelCardData`.

    Raises:
      UserError: `huggingface_hub` isn't installed.
    """
    return _library("To write a model card").ModelCardData(**fields).to_yaml()


def _library(purpose: str) -> Any:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{purpose}, pip install huggingface_hub.")
    import huggingface_hub

    return huggingface_hub


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {text}"
