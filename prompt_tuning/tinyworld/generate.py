"""Writes TinyWorld's eight tasks as official SuperGLUE jsonl files.

    <folder>/{BoolQ,CB,COPA,MultiRC,ReCoRD,RTE,WiC,WSC}/{train,val,test}.jsonl

Deterministic: the same source code generates the same bytes on every machine, so a digest of it
names the folder. Unlike SuperGLUE's, the test files contain labels. More training rows continue the
same streams: of 20,000, the first 2,000 are the default's. COPA, WiC and WSC have fewer different
ones (31,668, 16,576 and 10,456 in all), so larger files repeat some.
"""

import hashlib
import importlib.resources
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from prompt_tuning.files import CACHE_FIX, atomic_write, default_cache_dir, writing
from prompt_tuning.tinyworld.tasks import TASKS
from prompt_tuning.tinyworld.world import Region, World

_SOURCES = ("lexicon.py", "world.py", "templates.py", "tasks.py", "generate.py")
"""The modules that generate the rows."""

SPLITS: dict[str, tuple[Region, int]] = {
    "train": ("train", 2000),
    "val": ("validation", 400),
    "test": ("test", 400),
}
"""File name -> the region of its facts, and its number of rows (passages)."""


def tinyworld_folder(cache: Path | None = None, training_rows: int | None = None) -> Path:
    """Returns the folder with the eight tasks, writing it first if it isn't there.

    Args:
      cache: where the folder is.
      training_rows: rows of each training file; None is the default of `SPLITS`.

    Raises:
      UserError: the cache can't be written.
    """
    name = f"tinyworld-{_digest()}{'' if training_rows is None else f'-{training_rows}'}"
    folder = (cache or default_cache_dir()) / name
    if folder.is_dir():
        return folder
    with writing(folder, fix=CACHE_FIX):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            for task in TASKS:
                _write_task(Path(made) / "tinyworld" / task, task, training_rows)
            try:
                (Path(made) / "tinyworld").rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
    return folder


def rows(task: str, split: str, count: int | None = None) -> list[dict[str, Any]]:
    """Returns the rows of one file.

    Args:
      task: a key of `tasks.TASKS`, the name of SuperGLUE's folder.
      split: a key of `SPLITS`.
      count: the number of rows; None is the default of `SPLITS`.
    """
    region, default = SPLITS[split]
    # Each task has its own random stream, so that tasks share no passage.
    world = World(region, seed=list(TASKS).index(task))
    numbered = []
    for index, row in enumerate(itertools.islice(TASKS[task](world), count or default)):
        row["idx"] = index
        if task in ("MultiRC", "ReCoRD"):
            _number_parts(row)
        numbered.append(row)
    return numbered


def _digest() -> str:
    """Returns a digest of the source code, which identifies its output without generating it."""
    folder = importlib.resources.files("prompt_tuning.tinyworld")
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(folder.joinpath(name).read_bytes())
    return digest.hexdigest()[:16]


def _number_parts(row: dict[str, Any]) -> None:
    """Numbers a passage's questions and answers, within the passage."""
    answer_index = 0
    for index, question in enumerate(row["passage"].get("questions", row.get("qas", ()))):
        question["idx"] = index
        if "questions" in row["passage"]:
            for answer in question["answers"]:
                answer["idx"] = answer_index
                answer_index += 1


def _write_task(folder: Path, task: str, training_rows: int | None) -> None:
    folder.mkdir(parents=True)
    for split in SPLITS:
        found = rows(task, split, training_rows if split == "train" else None)
        with atomic_write(folder / f"{split}.jsonl", fix=CACHE_FIX) as file:
            file.writelines(json.dumps(row).encode() + b"\n" for row in found)
