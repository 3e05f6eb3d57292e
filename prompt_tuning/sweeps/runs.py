"""The runs of a sweep, grouped into parts that train together.

Runs that differ only in per-member settings form one part of the sweep and train as one population;
every other run is its own part.
"""

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.errors import listed
from prompt_tuning.files import FilePath
from prompt_tuning.sweeps.grid import short_hash
from prompt_tuning.sweeps.members import named_members


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
      name: readable, and unique per configuration.
      settings: from the sweep's axes.
      files: all gin files.
      bindings: all settings.
      resolved: every macro and parameter with a value, as gin text.
      shared: the configuration that members of one population must have in common.
      used: macros and parameters that have an effect; a population's member sets no others.
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
        """The maximum number of steps."""
        return int(self.resolved.get("TRAIN_STEPS", "0"))

    def flags(self, search_paths: str) -> list[str]:
        """Returns the gin flags of a command that trains or plans it, except for its folder."""
        flags = [f"--gin_file={file}" for file in self.files]
        flags += [f"--gin.{name}={value!r}" for name, value in self.bindings.items()]
        return flags + ([f"--gin_search_paths={search_paths}"] if search_paths else [])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Runs that train together.

    Attributes:
      runs: one, or the members of a population.
      population: each member's settings; empty for a single run.
    """

    runs: tuple[SweepRun, ...]
    population: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The name of its folder, unique per set of runs."""
        names = [run.name for run in self.runs]
        return names[0] if len(names) == 1 else f"{len(names)}_runs-{short_hash(names)}"

    @property
    def title(self) -> str:
        """Its name on the screen: its runs' names, without their hashes."""
        names = listed([re.sub(r"-[0-9a-f]{8}$", "", run.name) for run in self.runs], "; ")
        return names if len(self.runs) == 1 else f"{len(self.runs)} runs: {names}"

    @property
    def steps(self) -> int:
        """The maximum total number of steps of all its runs."""
        return sum(run.train_steps for run in self.runs)

    def command(self, folder: FilePath, search_paths: str) -> list[str]:
        """Returns the arguments of `prompt-tuning` that train the part into a folder."""
        flags = [*self.runs[0].flags(search_paths), f"--gin.MODEL_DIR={str(folder)!r}"]
        if self.population:
            flags.append(f"--gin.POPULATION={[dict(each) for each in self.population]!r}")
        return ["train", *flags]

    def run_folders(self, folder: FilePath) -> list[FilePath]:
        """Returns each run's own folder inside the part's."""
        specs = named_members(self.population)
        return [folder / "members" / spec.name for spec in specs] or [folder]


def parts_of(runs: Sequence[SweepRun], places: int) -> list[Part]:
    """Groups runs into parts, populations of at most `places` members."""
    groups: dict[Any, list[SweepRun]] = {}
    for run in runs:
        # Members can't set names that other members don't set, nor references.
        references = [item for item in run.resolved.items() if _literal(item[1]) is _NO_LITERAL]
        key = run.shared, tuple(sorted(run.resolved)), tuple(sorted(references))
        groups.setdefault(key, []).append(run)
    parts = [
        group[at : at + places] for group in groups.values() for at in range(0, len(group), places)
    ]
    return [Part(runs=tuple(part), population=_differences(part)) for part in parts]


def _differences(runs: Sequence[SweepRun]) -> tuple[dict[str, Any], ...]:
    """Returns the settings of each run that differ between runs and have an effect."""
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
    """Parses a value in gin's syntax; returns `_NO_LITERAL` for a reference or a macro."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _NO_LITERAL
