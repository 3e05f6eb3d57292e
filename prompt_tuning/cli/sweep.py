"""`prompt-tuning sweep FILE`: trains, or resumes, every run described by a gin file.

The folder may be shared: any number of workers, on any machines, take parts of the sweep that no
other worker has taken. Finished runs are never trained again. Failed parts are retried a few times
and listed at the end.
"""

import argparse
import contextlib
import datetime
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from prompt_tuning.buckets import in_bucket
from prompt_tuning.cli import sweep_plan
from prompt_tuning.cli.parsers import parse
from prompt_tuning.cli.sweep_cost import cost_text, costs
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, GrowingFile, as_path
from prompt_tuning.planning.machines import find_machine
from prompt_tuning.recipes.counting import Counting
from prompt_tuning.recipes.paths import run_folder
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.scripts import INTERRUPTED
from prompt_tuning.sweeps.results import provenance, read_table
from prompt_tuning.sweeps.runs import Part, SweepRun, parts_of
from prompt_tuning.sweeps.store import FIX, SweepStore
from prompt_tuning.training.logging import read_rows
from prompt_tuning.training.signals import StopRequest

FAILED = 1
# Stopped by the user or scheduler. Any other signal, such as the OOM killer's, is a failure.
_STOPPED = (INTERRUPTED, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
_LAST_LINE = 400  # characters


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 1 if a run has failed permanently."""
    args = parse("sweep", argv)
    if args.gin_file:
        raise UserError("A sweep lists its gin files in sweep.files; remove --gin_file.")
    if args.index is not None and args.shard is not None:
        raise UserError("Give either --index or --shard, not both.")
    if args.accelerator is not None and not args.plan:
        raise UserError("--accelerator requires --plan.")

    described = sweep_plan.load_sweep(args.file, args.gin_search_paths, args.gin_bindings)
    runs = sweep_plan.runs_of(described, args.gin_search_paths)
    folder = as_path(run_folder(args.folder or f"runs/{described.name}", "--folder"))
    chosen = _chosen(runs, args)
    if args.plan:
        print(_plan_text(described.name, runs, chosen, described.places, folder))
        if args.accelerator is None:
            print(
                "To estimate the cost on a machine, add --accelerator, such as --accelerator=h200."
            )
        else:
            machine = find_machine(args.accelerator, args.devices)
            print(cost_text(costs(chosen, machine, args.gin_search_paths, say), machine))
        return 0
    return _train(args, folder, chosen, described.places)


def _chosen(runs: Sequence[SweepRun], args: argparse.Namespace) -> list[SweepRun]:
    """Returns the runs assigned to this worker."""
    if args.index is not None:
        if not 0 <= args.index < len(runs):
            raise UserError(f"--index is {args.index}; the sweep has runs 0 to {len(runs) - 1}.")
        return [runs[args.index]]
    if args.done is not None:
        done = {row["run"] for row in read_table(as_path(args.done))}
        runs = [each for each in runs if each.name not in done]
    if args.shard is None:
        return list(runs)
    index, slash, count = args.shard.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--shard is '{args.shard}'; expected I/N with I from 0 to N-1.")
    # Contiguous slices: adjacent runs are likely to form one population.
    bounds = [len(runs) * at // int(count) for at in (int(index), int(index) + 1)]
    return list(runs[bounds[0] : bounds[1]])


def _plan_text(
    name: str, runs: Sequence[SweepRun], chosen: Sequence[SweepRun], places: int, folder: FilePath
) -> str:
    store = SweepStore(folder) if folder.is_dir() else None
    done = {each.name for each in chosen if store and store.finished(each.name)}
    left = [each for each in chosen if each.name not in done]
    parts = parts_of(left, places)
    lines = [f"{'index':>5}  {'steps':>7}  run"]
    order = {each.name: index for index, each in enumerate(runs)}
    for each in chosen:
        mark = "  (finished)" if each.name in done else ""
        lines.append(f"{order[each.name]:>5}  {each.train_steps:>7,}  {each.name}{mark}")
    steps = sum(each.train_steps for each in left)
    lines.append(
        f"{name}: {_number(len(chosen), 'run')}, {len(done)} finished; {len(left)} to train in "
        f"{_number(len(parts), 'part')}, {steps:,} steps at most. Results: {folder}/"
    )
    return "\n".join(lines)


def _train(
    args: argparse.Namespace, folder: FilePath, chosen: Sequence[SweepRun], places: int
) -> int:
    store = SweepStore(folder)
    left = [each for each in chosen if store.finished(each.name) is None]
    if args.again:
        for each in left:
            store.forget_failures(each.name)
    parts = parts_of(left, places)
    say(
        f"{_number(len(chosen), 'run')}, {len(chosen) - len(left)} finished; "
        f"{_number(len(parts), 'part')} to train."
    )
    counting = Counting(folder.name, sum(part.steps for part in parts), "steps")
    done = 0
    for number, part in enumerate(parts, start=1):
        say(f"[{number}/{len(parts)}] {part.title} ...")
        with store.lease(part.name) as mine:
            if not mine:
                say("  another worker is training it.")
                continue
            _train_part(
                args,
                store,
                part,
                lambda step, before=done, number=number, steps=part.steps: counting.at(
                    before + step, f"part {number} of {len(parts)} at step {step:,} of {steps:,}"
                ),
            )
        done += part.steps
    counting.close()
    failed = {each.name: why for each in chosen if (why := store.failure(each.name))}
    finished = sum(store.finished(each.name) is not None for each in chosen)
    for name, failure in failed.items():
        say(f"Failed {failure['times']} times: {name}: {failure['why']}")
    say(
        f"{finished} of {len(chosen)} runs have finished, {len(failed)} failed. "
        f"Look at them:  prompt-tuning results {folder}  or  prompt-tuning report {folder}"
    )
    return FAILED if failed else 0


def _train_part(
    args: argparse.Namespace, store: SweepStore, part: Part, reached: Callable[[int], None]
) -> None:
    """Trains a part, with retries, and records its runs; `reached` receives each step."""
    folder = store.part(part.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")

    def look() -> None:
        if not in_bucket(folder):  # whose rows come with checkpoints
            reached(sum(map(_last_step, part.run_folders(folder))))

    command = [sys.executable, "-m", "prompt_tuning.cli"]
    command += part.command(folder, args.gin_search_paths)
    while all(
        (failure := store.failure(each.name)) is None or failure["times"] <= args.retries
        for each in part.runs
    ):
        started = time.monotonic()
        with contextlib.closing(GrowingFile(log, fix=FIX)) as output:
            status = _wait(
                subprocess.Popen(command, stdout=output.fileno(), stderr=output.fileno()), look
            )
        if status == 0:
            _record(store, part, folder)
            say(f"  finished after {time.monotonic() - started:.0f} s.")
            return
        if status in _STOPPED:
            raise KeyboardInterrupt
        lines = log.read_bytes().decode("utf-8", "replace").strip().splitlines() or ["no output"]
        why = lines[-1][-_LAST_LINE:]
        say(f"  failed (exit status {status}, {log}): {why}")
        for each in part.runs:
            store.fail(each.name, why)


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> int:
    """Waits for a process, calls `look` every second, and forwards SIGTERM to the process.

    Ctrl-C reaches both processes, SIGTERM only this one. The other then saves a checkpoint.

    Raises:
      KeyboardInterrupt: a signal was received.
    """
    with StopRequest(saving=True) as stop:
        handed_on = False
        while True:
            try:
                status = process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                look()
                if stop.signal_number == signal.SIGTERM and not handed_on:
                    handed_on = True
                    process.terminate()
                continue
            if status != 0 and stop.signal_number is not None:
                raise KeyboardInterrupt
            return status


def _last_step(folder: FilePath) -> int:
    """Returns the step of a run's last metrics row; 0 if there is none yet."""
    path = folder / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    return int(rows[-1]["step"]) if rows else 0


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _record(store: SweepStore, part: Part, folder: FilePath) -> None:
    """Records the runs of a part that succeeded."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for each, where in zip(part.runs, part.run_folders(folder), strict=True):
        versions = json.loads((folder / "versions.json").read_text())
        record = {
            "settings": dict(each.settings),
            "config": dict(each.resolved),
            "folder": str(where.relative_to(store.folder)),
            "summary": json.loads((where / "summary.json").read_text()),
            "versions": provenance(versions, date),
        }
        store.finish(each.name, record)
