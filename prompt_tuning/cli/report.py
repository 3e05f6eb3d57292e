"""`prompt-tuning report RUN_OR_SWEEP`: writes a web page on a run or a sweep.

prompt-tuning report runs/rte
prompt-tuning report runs/lengths --output lengths.html

The page is a single self-contained file. For a run of prompt tuning, it shows the prompt's nearest
pieces, which needs the frozen model; if that can't be loaded, the page states why.
"""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from prompt_tuning.buckets import check_reachable
from prompt_tuning.checkpoints.adapters.adapter_files import best_file
from prompt_tuning.checkpoints.adapters.prompt_files import BEST_PROMPT
from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors
from prompt_tuning.cli import loading
from prompt_tuning.cli.neighbors import report_of
from prompt_tuning.cli.parsers import parse
from prompt_tuning.cli.run_files import run_answers, summary_so_far
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, atomic_write
from prompt_tuning.json_text import parse_json
from prompt_tuning.pages.run_page import MemberContents, Resemblance, RunContents, run_page
from prompt_tuning.pages.sweep_page import Sweep, sweep_page
from prompt_tuning.pages.web_page import MARK
from prompt_tuning.sweeps.results import read_records
from prompt_tuning.training.logging import read_rows
from prompt_tuning.training.run_folder import MEMBERS

NAME = "report.html"
"""Default file name of the page, in the run or sweep folder."""

_FIX = "Give another --output."
_DAMAGED = "Restore it, or train the run again."
_START = 400  # leading characters, which contain a page's mark


def main(argv: Sequence[str]) -> None:
    """Runs the command; writes the page and prints its path."""
    args = parse("report", argv)
    check_reachable(folder := as_path(args.folder))
    output = as_path(args.output or folder / NAME)
    is_sweep = _is_sweep(folder)
    _check_output(output)
    if is_sweep:
        text = sweep_page(read_sweep(args.folder))
    else:
        text = run_page(read_run(args.folder), _resemblance(args))
    with atomic_write(output, fix=_FIX) as file:
        file.write(text.encode("utf-8", "replace"))
    print(output)


def _is_sweep(folder: FilePath) -> bool:
    if not folder.is_dir():
        raise UserError(f"Folder {folder} doesn't exist; give the folder of a run or a sweep.")
    if (folder / "runs").is_dir() and (folder / "parts").is_dir():
        return True
    if not (folder / "config.gin").is_file() and not (folder / "summary.json").is_file():
        raise UserError(
            f"{folder} is neither a run folder (config.gin, summary.json) nor a sweep folder "
            "(runs/, parts/)."
        )
    return False


def _check_output(output: FilePath) -> None:
    """Raises UserError if another file than a page would be overwritten."""
    if not output.exists():
        return
    if not output.is_file():
        raise UserError(f"Can't write {output}: it is not a file. {_FIX}")
    with output.open("rb") as file:
        if MARK.encode() not in file.read(_START):
            raise UserError(f"{output} exists and is not a report; {_FIX[0].lower()}{_FIX[1:]}")


def read_run(folder: str) -> RunContents:
    """Reads the folder of a run or of a population.

    Raises:
      UserError: it hasn't been evaluated yet, or a file is damaged.
    """
    path = as_path(folder)
    settings = _object(path / "settings.json")
    summary = _object(path / "summary.json") or summary_so_far(path, settings)
    members = [
        MemberContents(
            name=each["name"],
            summary=each,
            rows=read_rows(path / MEMBERS / PurePosixPath(each["name"]).name / "metrics.jsonl"),
        )
        for each in summary.get("members") or []
    ]
    best = next((m.rows for m in members if m.name == summary.get("best")), None)
    trained, config = best_file(path), path / "config.gin"
    return RunContents(
        folder=folder,
        summary=summary,
        rows=read_rows(path / "metrics.jsonl") if best is None else best,
        settings=settings,
        versions=_object(path / "versions.json"),
        config=config.read_bytes().decode("utf-8", "replace") if config.is_file() else "",
        hashes={trained.name: _sha256(trained)} if trained else {},
        trained_for=_trained_for(trained) if trained else {},
        members=members,
        answers=run_answers(path, summary),
    )


def _trained_for(path: FilePath) -> dict[str, Any]:
    """Returns the metadata, except the score, of a prompt's or adapter's file."""
    _, metadata = stored_safetensors(path)
    names = {"method": "method", "vocabulary_hash": "SHA-256 of the vocabulary"}
    return {name: metadata[key] for key, name in names.items() if key in metadata}


def _resemblance(args: argparse.Namespace) -> Resemblance | str:
    """Returns the pieces nearest to the run's prompt, or why they aren't available."""
    trained = best_file(args.folder)
    if args.no_neighbors:
        return "Omitted because of --no_neighbors."
    if trained is None:
        return "This run didn't train a prompt."
    if trained.stem != BEST_PROMPT:
        method = _trained_for(trained).get("method", "this run's method")
        return f"There are no neighbors to show: {method} doesn't train a prompt."
    try:
        loading.load_config(args, run=args.folder)
        more = report_of(str(trained), k=args.k, words=True)
    except UserError as error:
        why, _, _ = str(error).partition("\n")
        return f"The neighbors of this prompt can't be shown: {why}"
    tables = [table for name, table in more.tables.items() if name != "neighbors"]
    return Resemblance(neighbors=more.neighbors, tables=tables)


def read_sweep(folder: str) -> Sweep:
    """Reads the results of a sweep's runs.

    Raises:
      UserError: no run has finished, or a file is damaged.
    """
    path = as_path(folder)
    records = read_records(folder)
    where = {run: path / record["folder"] for run, record in records.items()}
    failed = {file.stem: _object(file) for file in sorted((path / "failures").glob("*.json"))}
    # Run folders may be gone; their records remain.
    metrics = {
        run: read_rows(each / "metrics.jsonl")
        for run, each in where.items()
        if (each / "metrics.jsonl").is_file()
    }
    versions = [_object(each / "versions.json") for each in where.values()]
    packages = [each["packages"] for each in versions if isinstance(each.get("packages"), dict)]
    return Sweep(
        folder=folder,
        records=records,
        failures={run: failure for run, failure in failed.items() if run not in records},
        metrics=metrics,
        packages=[each for i, each in enumerate(packages) if each not in packages[:i]],
    )


def _object(path: FilePath) -> dict[str, Any]:
    """Returns the JSON object in a file; an empty one if there is no file.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged, not JSON: {error}. {_DAMAGED}") from error


def _sha256(path: FilePath) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
