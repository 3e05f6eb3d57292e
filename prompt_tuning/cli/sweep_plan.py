"""Reads a sweep's gin file into its runs.

    sweep.files = ['models/tinyworld_small.gin', 'prompts/class_label.gin', 'runs/train.gin']
    sweep.settings = {'TRAIN_STEPS': 300}
    sweep.grid = {'gin_file': ['tasks/tinyworld_rte.gin', 'tasks/tinyworld_wic.gin'],
                  'PROMPT_LENGTH': [1, 5, 20], 'SEED': [0, 1, 2]}

Each run is a `prompt-tuning train` with these files and settings. Runs that may share a population
form a part, which `sweep.py` trains in one `prompt-tuning train --gin.POPULATION=...` subprocess.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.cli import (
    configurables,  # noqa: F401 - registers configurables
    gin_config,
    identity,
    members,
)
from prompt_tuning.cli.registry import register
from prompt_tuning.errors import UserError, at_least
from prompt_tuning.recipes.signatures import mark
from prompt_tuning.sweeps import grid as grids
from prompt_tuning.sweeps.grid import GIN_FILES
from prompt_tuning.sweeps.runs import SweepRun

PLACES = 16
"""Maximum number of members of a part: as many as a population trains at a time."""

_NAMED = ("train.log_every", "train.checkpoint_every", "train.keep_checkpoints")
"""Settings that don't affect results but are part of the hashes in run names. Without them, run
names in existing sweep folders and published results would change."""


_TINYWORLD = (
    r"'(tinyworld_[a-z]+|experiments/lm_adaptation/checkpoints/tinyworld_mini_\d+\.safetensors)'"
)


def _set_by_model_files(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings of shipped gin files that are 'auto' by now, for the names of runs."""
    found = {}
    size = settings.get("frozen_model.architecture", "").rpartition("_")[2].strip("'")
    if size == "small" or re.fullmatch(_TINYWORLD, settings.get("INITIAL_CHECKPOINT_PATH", "")):
        found["frozen_model.unroll"] = "0"
    if size in ("xl", "3b", "xxl", "11b"):
        found["frozen_model.param_dtype"] = found["frozen_model.compute_dtype"] = "'bfloat16'"
    if size in ("xxl", "11b"):
        found["frozen_model.remat"] = "True"
    if "frozen_model.quantization" in settings:
        found["frozen_model.unroll"] = "1"
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as described by its gin file.

    Attributes:
      name: the folder's name.
      files: gin files of every run.
      settings: settings of every run, by gin name.
      axes: settings that differ between runs.
      places: maximum number of members of a population; 1 trains every run by itself.
    """

    name: str
    files: tuple[str, ...]
    settings: Mapping[str, Any]
    axes: list[grids.Axis]
    places: int


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
    at_least(1, {"sweep.places": places})
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
      UserError: it can't be read, or isn't a sweep.
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


def runs_of(described: Sweep, search_paths: str) -> list[SweepRun]:
    """Returns every run of a sweep, after validating its configuration.

    Raises:
      UserError: a configuration can't be read, or two runs have the same configuration.
    """
    by_hash: dict[str, SweepRun] = {}
    for settings in grids.combinations(described.axes):
        for name in {**described.settings, **settings}:
            if members.is_assigned(name):
                raise UserError(
                    f"The sweep sets {name}, which is set automatically for each run; remove it."
                )
        run = _run(described, settings, search_paths)
        digest = run.name.rpartition("-")[2]
        if digest in by_hash:
            raise UserError(
                f"Two runs of the sweep have the same configuration: {by_hash[digest].name} and "
                f"{run.name}. One of the settings has no effect; leave it out."
            )
        by_hash[digest] = run
    return list(by_hash.values())


def _run(described: Sweep, settings: Mapping[str, Any], search_paths: str) -> SweepRun:
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
        if not mark(name).per_member and not mark(name).free
    }
    hashed = _set_by_model_files(resolved) | resolved | named
    if hashed.get("data.extra_tokens") == "None":  # the default was 100 in older versions;
        hashed["data.extra_tokens"] = "100"  # this keeps their run names
    return SweepRun(
        name=f"{grids.slug(settings)}-{grids.short_hash(hashed)}",
        settings=settings,
        files=files,
        bindings=bindings,
        resolved=resolved,
        shared=tuple(sorted(shared.items())),
        used=frozenset(parameters).union(*(names for _, names in parameters.values())),
    )
