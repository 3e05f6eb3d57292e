"""Validates a command before its job is written, as the command itself would on the cluster.

Arguments, gin files and flags are read by the command's own parser and loader.
No model or data is read, and nothing is written.
"""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prompt_tuning.cli import (
    configurables,
    gin_config,
    loading,  # noqa: F401
    registry,
    sweep_plan,
)
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError

_CONFIGURED = {"train": (), "pretrain": ("runs/pretrain.gin",), "evaluate": (), "infer": ()}
"""Commands whose configuration is checked, with the gin files they always read."""

_FIX = "(--no_check skips this check.)"


def check_command(
    command: Sequence[str],
    *,
    workdir: str | None = None,
    sweep: Mapping[str, Sequence[str]] | None = None,
    folder: str = "runs",
) -> None:
    """Checks the command after `--`.

    Args:
      command: the name of a command, and its arguments.
      workdir: where it will run; gin files are searched there if the folder exists here.
      sweep: values by macro, each of which is checked.
      folder: parent of the sweep's run folders.

    Raises:
      UserError: an argument, a gin file, a name or a value is wrong, or a setting is missing.
    """
    name, *rest = command
    args = parse(name, rest)
    if getattr(args, "run", None) is not None:
        return  # the run folder is on the cluster, and so is its configuration
    try:
        with contextlib.chdir(workdir if workdir and Path(workdir).is_dir() else "."):
            if name == "sweep":
                paths = args.gin_search_paths
                sweep_plan.runs_of(
                    sweep_plan.load_sweep(args.file, paths, args.gin_bindings), paths
                )
            elif name in _CONFIGURED:
                for bindings in _members(sweep or {}, folder):
                    _check_configuration(name, args.gin_file, args.gin_bindings + bindings, args)
    except UserError as error:
        raise UserError(f"The command after -- can't run: {error} {_FIX}") from error


def _members(sweep: Mapping[str, Sequence[str]], folder: str) -> Iterator[list[tuple[str, str]]]:
    """Yields each value of each macro once, with the first values of the other macros."""
    if not sweep:
        yield []
        return
    first = {macro: values[0] for macro, values in sweep.items()}
    tried = [first]
    tried += [{**first, macro: value} for macro, values in sweep.items() for value in values[1:]]
    for settings in tried:
        yield [*settings.items(), ("MODEL_DIR", f"{folder.rstrip('/')}/member")]


def _check_configuration(
    name: str, files: Sequence[str], bindings: Sequence[tuple[str, str]], args: argparse.Namespace
) -> None:
    gin_config.load([*_CONFIGURED[name], *files], bindings, args.gin_search_paths)
    registry.require(configurables.frozen_model)
    if name in ("train", "pretrain"):
        registry.require(configurables.train)
        configurables.train()  # rejects invalid run folders, such as one in a bucket
    if name != "pretrain":
        registry.require(configurables.data)
