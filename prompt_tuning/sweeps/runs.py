"""The runs of a sweep, and the parts in which they are trained.

Runs that differ only in what members of a population may differ in are one part of the sweep and
train as one population; every other run is a part by itself.
"""

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.errors import listed
from prompt_tuning.sweeps.grid import short_hash
from prompt_tuning.sweeps.members import named_members


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: readable, and different for every configuration.
      settings: what the sweep's axes set.
      files: all its gin files.
      bindings: all its settings.
      resolved: every macro and parameter that is set, as gin writes it.
      shared: what it must have in common with others of a population.
      used: macros and parameters that have an effect; a member of a population sets no others.
    """

    name: str
    settings: Mapping[str, Any]
    files: tuple[str, ...]
    bindings: Mapping[str, Any]
    resolved: Mapping[str, str]
    shared: tuple[tuple[str, str], ...]
    used: frozenset[str]

    @property
    def train_steps(self) -> int:
        """The most steps that it makes."""
        return int(self.resolved.get("TRAIN_STEPS", "0"))

    def flags(self, search_paths: str) -> list[str]:
        """Returns the gin flags of a command that trains or plans it, but for its folder."""
        flags = [f"--gin_file={file}" for file in self.files]
        flags += [f"--gin.{name}={value!r}" for name, value in self.bindings.items()]
        return flags + ([f"--gin_search_paths={search_paths}"] if search_paths else [])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Runs that train together.

    Attributes:
      runs: one, or the members of a population.
      population: what each member sets; empty for a run by itself.
    """

    runs: tuple[Run, ...]
    population: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The name of its folder, different for other runs."""
        names = [run.name for run in self.runs]
        return names[0] if len(names) == 1 else f"{len(names)}_runs-{short_hash(names)}"

    @property
    def title(self) -> str:
        """Its name on the screen: its runs' names, without their hashes."""
        names = listed([re.sub(r"-[0-9a-f]{8}$", "", run.name) for run in self.runs], "; ")
        return names if len(self.runs) == 1 else f"{len(self.runs)} runs: {names}"

    @property
    def steps(self) -> int:
        """The most steps that all its runs together make."""
        return sum(run.train_steps for run in self.runs)

    def command(self, folder: Path, search_paths: str) -> list[str]:
        """Returns the arguments of `prompt-tuning` that train the part into a folder."""
        flags = [*self.runs[0].flags(search_paths), f"--gin.MODEL_DIR={str(folder)!r}"]
        if self.population:
            flags.append(f"--gin.POPULATION={[dict(each) for each in self.population]!r}")
        return ["train", *flags]

    def run_folders(self, folder: Path) -> list[Path]:
        """Returns where each run's own folder is inside the part's."""
        specs = named_members(self.population)
        return [folder / "members" / spec.name for spec in specs] or [folder]


def parts_of(runs: Sequence[Run], places: int) -> list[Part]:
    """Returns the parts in which runs are trained, populations of at most `places` members."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        # A member can set neither what isn't set otherwise, nor a reference.
        references = [item for item in run.resolved.items() if _literal(item[1]) is _NO_LITERAL]
        key = run.shared, tuple(sorted(run.resolved)), tuple(sorted(references))
        groups.setdefault(key, []).append(run)
    parts = [
        group[at : at + places] for group in groups.values() for at in range(0, len(group), places)
    ]
    return [Part(runs=tuple(part), population=_differences(part)) for part in parts]


def _differences(runs: Sequence[Run]) -> tuple[dict[str, Any], ...]:
    """Returns what each of several runs sets, with an effect, that isn't alike in all."""
    if len(runs) == 1:
        return ()
    differing = [
        name for name in sorted(runs[0].resolved) if len({run.resolved[name] for run in runs}) > 1
    ]
    return tuple(
        {name: _literal(run.resolved[name]) for name in differing if name in run.used}
        for run in runs
    )


_NO_LITERAL = object()


def _literal(text: str) -> Any:
    """Returns the value that gin wrote down, or `_NO_LITERAL` for a reference or a macro."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _NO_LITERAL
