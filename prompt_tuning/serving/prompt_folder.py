"""A server's prompts: the files of one folder, by name, and no file outside it.

`rte.safetensors`, or else `rte.npy`, is the prompt `rte`. Names consist of letters, digits, `.`,
`_` and `-`, so they can't contain a path; links are followed only within the folder.
"""

import dataclasses
import re
import threading
from collections.abc import Callable
from pathlib import Path

from prompt_tuning.buckets import storage
from prompt_tuning.checkpoints.adapters.adapter_files import check_fits, load_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.evaluation.predictor import Predictor
from prompt_tuning.files import FilePath, as_path

SUFFIXES = (".safetensors", ".npy")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


class NoSuchPromptFile(UserError):
    """The folder has no file for this prompt name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """A loaded prompt.

    Attributes:
      name: its name in examples.
      length: number of virtual tokens in front of the input; 0 if the method has none.
      metadata: from its file.
      version: changes when the file does.
    """

    name: str
    length: int
    metadata: PromptMetadata
    version: tuple[str, int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of a rescan: prompt names, and the errors of rejected files."""

    loaded: list[str]
    removed: list[str]
    refused: dict[str, str]


class PromptFolder:
    """Loads prompts from a folder into a predictor; safe to call from several threads.

    Args:
      folder: of the files.
      predictor: answers with the prompts.
      find_task: (a prompt's file, the task name in it) -> the task, if known.
      ranks: whether to rank the labels of the prompt's task for examples without labels.

    Raises:
      UserError: the folder doesn't exist.
    """

    def __init__(
        self,
        folder: str | FilePath,
        predictor: Predictor,
        find_task: Callable[[FilePath, str | None], Task | None] = lambda file, name: None,
        *,
        ranks: bool = False,
    ):
        self.folder = as_path(folder)
        if not self.folder.is_dir():
            raise UserError(f"Folder {folder} doesn't exist; give a folder of prompt files.")
        self._predictor = predictor
        self._find_task = find_task
        self._ranks = ranks
        self._loaded: dict[str, Loaded] = {}
        self._lock = threading.Lock()

    @property
    def loaded(self) -> list[Loaded]:
        """The loaded prompts, sorted by name."""
        with self._lock:
            return [self._loaded[name] for name in sorted(self._loaded)]

    def load(self, name: str) -> Loaded:
        """Loads or reloads the prompt of this name.

        Raises:
          NoSuchPromptFile: the folder has no file for it.
          UserError: the name is invalid, its file is outside the folder, or it isn't a prompt for
            the model.
        """
        with self._lock:
            return self._load(name)

    def rescan(self) -> Changes:
        """Loads new and changed prompts, and removes deleted ones; rejects files that don't fit."""
        with self._lock:
            loaded, refused = [], {}
            names = self._names()
            for name in names:
                try:
                    before = self._loaded.get(name)
                    if before is None or before.version != _version(self._file(name)):
                        self._load(name)
                        loaded.append(name)
                except UserError as error:
                    refused[name] = str(error)
            removed = sorted(self._loaded.keys() - names)
            for name in removed:
                self._predictor.remove(name)
                del self._loaded[name]
            return Changes(loaded=loaded, removed=removed, refused=refused)

    def _load(self, name: str) -> Loaded:
        file = self._file(name)
        version = _version(file)
        predictor = self._predictor
        adapter = load_adapter(
            file,
            embed_dim=predictor.config.embed_dim,
            model=predictor.config.name,
            vocabulary_hash=predictor.vocabulary.hash,
            config=predictor.config,
        )
        if not adapter.is_prompt:
            check_fits(predictor.config, adapter, str(file))
        task = self._find_task(file, adapter.metadata.task)
        prompt = predictor.add(
            name,
            adapter.injection,
            task=task,
            labels=(task.labels or ()) if task and self._ranks else (),
            target_sentinel=bool(adapter.metadata.target_sentinel),
        )
        loaded = Loaded(name=name, length=prompt.length, metadata=adapter.metadata, version=version)
        self._loaded[name] = loaded
        return loaded

    def _names(self) -> list[str]:
        # Skip hidden files: they may be incomplete files that others are writing.
        files = (path for path in self.folder.iterdir() if not path.name.startswith("."))
        return sorted({path.stem for path in files if path.suffix in SUFFIXES})

    def _file(self, name: str) -> FilePath:
        """Returns the file for a name; the target of a link must be in the folder too."""
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name[:100]!r} can't be the name of a prompt; expected up to 100 letters, "
                "digits, '.', '_' or '-', such as 'rte'."
            )
        for suffix in SUFFIXES:
            path = self.folder / f"{name}{suffix}"
            if self._is_link_outside(path):
                raise UserError(
                    f"The prompt '{name}' links to a file outside the prompt folder; copy the "
                    "file into it."
                )
            if path.is_file():
                return path
        raise NoSuchPromptFile(
            f"The prompt folder has no {' or '.join(name + suffix for suffix in SUFFIXES)}."
            f"{did_you_mean(name, self._names())}"
        )

    def _is_link_outside(self, path: FilePath) -> bool:
        if not isinstance(path, Path) or not path.is_symlink():
            return False
        return not path.resolve().is_relative_to(Path(self.folder).resolve())


def _version(file: FilePath) -> tuple[str, int, int, int]:
    if not isinstance(file, Path):
        return file.name, int(storage().info(str(file))["generation"]), 0, 0
    status = file.stat()
    return file.name, status.st_mtime_ns, status.st_size, status.st_ino
