"""From a sweep's gin file to its runs, and to the commands that train them.

    sweep.files = ['models/tinyworld_small.gin', 'prompts/class_label.gin', 'runs/train.gin']
    sweep.settings = {'TRAIN_STEPS': 300}
    sweep.grid = {'gin_file': ['tasks/tinyworld_rte.gin', 'tasks/tinyworld_wic.gin'],
                  'PROMPT_LENGTH': [1, 5, 20], 'SEED': [0, 1, 2]}

A run is what `prompt-tuning train` makes of the files and settings. Runs that differ only in what
the members of a population may differ in (`members.py`) are one part of the sweep and train as one
population; every other run is a part by itself.
"""

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.cli import (
    configurables,  # noqa: F401 - registered with gin
    gin_config,
    identity,
    members,
    registry,
)
from prompt_tuning.cli.registry import register
from prompt_tuning.errors import UserError, listed
from prompt_tuning.sweeps import grid as grids
from prompt_tuning.sweeps.grid import GIN_FILES

PLACES = 16
"""The most members of one part, as many as a population trains at a time."""

_NAMED = ("train.log_every", "train.checkpoint_every", "train.keep_checkpoints")
"""Settings that no result depends on, and that the names of runs have always been hashes of: with
others, the folders of older sweeps and the published results would name other runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as its file has it.

    Attributes:
      name: of its folder.
      files: gin files of every run.
      settings: of every run, by gin name.
      axes: what runs differ in.
      places: the most members of a population; 1: every run trains by itself.
    """

    name: str
    files: tuple[str, ...]
    settings: Mapping[str, Any]
    axes: list[grids.Axis]
    places: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: readable, and another one for every configuration.
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
        """Steps that it makes at most."""
        return int(self.resolved.get("TRAIN_STEPS", "0"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Runs that train together; `name` is another one for other runs."""

    name: str
    runs: tuple[Run, ...]
    population: tuple[Mapping[str, Any], ...]

    @property
    def title(self) -> str:
        """What it is called on the screen: its runs' names, without their hashes."""
        names = listed([re.sub(r"-[0-9a-f]{8}$", "", run.name) for run in self.runs], "; ")
        return names if len(self.runs) == 1 else f"{len(self.runs)} runs: {names}"

    @property
    def steps(self) -> int:
        """Of all its runs together, at most."""
        return sum(run.train_steps for run in self.runs)

    def command(self, folder: Path, search_paths: str) -> list[str]:
        """Returns the arguments of `prompt-tuning` that train the part into a folder."""
        first = self.runs[0]
        flags = [f"--gin_file={file}" for file in first.files]
        flags += [f"--gin.{name}={value!r}" for name, value in first.bindings.items()]
        flags.append(f"--gin.MODEL_DIR={str(folder)!r}")
        if search_paths:
            flags.append(f"--gin_search_paths={search_paths}")
        if self.population:
            flags.append(f"--gin.POPULATION={[dict(each) for each in self.population]!r}")
        return ["train", *flags]

    def run_folders(self, folder: Path) -> list[Path]:
        """Returns where each run's own folder is inside the part's."""
        if not self.population:
            return [folder]
        specs = members.member_specs(list(self.population), "POPULATION")
        return [folder / "members" / spec.name for spec in specs]


@register
def sweep(
    files: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    zipped: Mapping[str, Sequence[Any]] | None = None,
    listed: Sequence[Mapping[str, Any]] = (),
    name: str = "sweep",
    places: int = PLACES,
) -> Sweep:
    """A sweep; see the module's docstring. `zipped` and `listed` are described in `grid.py`."""
    if places < 1:
        raise UserError(f"sweep.places is {places}; it must be at least 1.")
    axes = [
        *grids.grid_axes(grid or {}),
        *grids.zipped_axis(zipped or {}),
        *grids.list_axis(listed),
    ]
    return Sweep(
        name=name, files=tuple(files), settings=dict(settings or {}), axes=axes, places=places
    )


def load_sweep(file: str, search_paths: str, bindings: Sequence[tuple[str, str]]) -> Sweep:
    """Reads a sweep's file.

    Raises:
      UserError: it can't be read, or lacks what a sweep needs.
    """
    gin_config.load([file], bindings, search_paths)
    if "files" not in gin_config.parameters("sweep"):
        raise UserError(
            f"{file} is not a sweep: it sets no sweep.files. See docs/sweeps.md for an example."
        )
    found = sweep()  # pyright: ignore[reportCallIssue]
    if "name" in gin_config.parameters("sweep"):
        return found
    return dataclasses.replace(found, name=re.sub(r"\.gin$", "", file).rpartition("/")[2])


def runs_of(described: Sweep, search_paths: str) -> list[Run]:
    """Returns every run of a sweep, its configuration read and checked.

    Raises:
      UserError: a configuration can't be read, or two runs have the same one.
    """
    runs: list[Run] = []
    by_hash: dict[str, Run] = {}
    for settings in grids.combinations(described.axes):
        for name in {**described.settings, **settings}:
            if members.is_assigned(name):
                raise UserError(f"The sweep sets {name}, which it gives each run itself.")
        run = _run(described, settings, search_paths)
        digest = run.name.rpartition("-")[2]
        if digest in by_hash:
            raise UserError(
                f"Two runs of the sweep have the same configuration: {by_hash[digest].name} and "
                f"{run.name}. One of the settings has no effect; leave it out."
            )
        by_hash[digest] = run
        runs.append(run)
    return runs


def _run(described: Sweep, settings: Mapping[str, Any], search_paths: str) -> Run:
    files = (*described.files, *grids.gin_files(settings))
    own = {name: value for name, value in settings.items() if name != GIN_FILES}
    bindings = {**described.settings, **own}
    given = [(name, repr(value)) for name, value in bindings.items()]
    gin_config.load(files, [*given, ("MODEL_DIR", "'-'")], search_paths)
    resolved = identity.settings()
    named = {name: text for name, text in gin_config.settings().items() if name in _NAMED}
    parameters = gin_config.resolved()
    shared = {
        name: text
        for name, (text, _) in parameters.items()
        if not registry.mark(name).per_member and not registry.mark(name).free
    }
    hashed = resolved | named
    if hashed.get("data.extra_tokens") == "None":  # 100 before it followed the prompt's length
        hashed["data.extra_tokens"] = "100"  # so that folders of sweeps keep their names
    return Run(
        name=f"{grids.slug(settings)}-{grids.short_hash(hashed)}",
        settings=settings,
        files=files,
        bindings=bindings,
        resolved=resolved,
        shared=tuple(sorted(shared.items())),
        used=frozenset(parameters).union(*(names for _, names in parameters.values())),
    )


def parts_of(runs: Sequence[Run], places: int) -> list[Part]:
    """Returns the parts in which runs are trained, populations of at most `places` members."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.shared, *_unwritable(run)), []).append(run)
    return [
        _part(group[at : at + places])
        for group in groups.values()
        for at in range(0, len(group), places)
    ]


def _unwritable(run: Run) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Returns what a member of a population can't set: which settings there are, and references."""
    references = [
        (name, text) for name, text in run.resolved.items() if _literal(text) is _NO_LITERAL
    ]
    return tuple(sorted(run.resolved)), tuple(sorted(references))


def _part(runs: Sequence[Run]) -> Part:
    name = (
        runs[0].name
        if len(runs) == 1
        else f"{len(runs)}_runs-{grids.short_hash([run.name for run in runs])}"
    )
    population = () if len(runs) == 1 else tuple(_differences(runs))
    return Part(name=name, runs=tuple(runs), population=population)


def _differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns what each run sets, with an effect, that isn't alike in all."""
    differing = [
        name for name in sorted(runs[0].resolved) if len({run.resolved[name] for run in runs}) > 1
    ]
    return [
        {name: _literal(run.resolved[name]) for name in differing if name in run.used}
        for run in runs
    ]


_NO_LITERAL = object()


def _literal(text: str) -> Any:
    """Returns the value that gin wrote down, or `_NO_LITERAL` for a reference or a macro."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return _NO_LITERAL
