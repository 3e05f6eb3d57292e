"""`prompt-tuning train` with POPULATION or `--tune`: trains many prompts at once.

`members.py` reads the list of members, `training/loop.py` trains them, and `recipes/population.py`
writes the results.
"""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence

from prompt_tuning.cli import configurables, gin_config, identity, loading, members, run_task
from prompt_tuning.cli.configurables import Base, Data
from prompt_tuning.cli.next_commands import infer_command
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import listed
from prompt_tuning.parallel.processes import first_then_all, is_first
from prompt_tuning.recipes import task_file
from prompt_tuning.recipes.identity import compare
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.population import best_first, write_results
from prompt_tuning.recipes.run_block import RunFacts, aligned, run_facts, start_block
from prompt_tuning.recipes.say import say, say_once
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.train import MemberJob, train_jobs
from prompt_tuning.sweeps.members import MemberSpec
from prompt_tuning.training.run import TrainResult
from prompt_tuning.training.run_folder import MEMBERS, RunFolder
from prompt_tuning.training.startup import Startup


def train_population(args: argparse.Namespace, startup: Startup) -> None:
    """Trains the members listed by the loaded configuration, and prints a table of results.

    Args:
      args: the command's arguments; their configuration is loaded.
      startup: the command's startup timer.

    Raises:
      UserError: the members can't form a population, or training fails.
    """
    macro = "POPULATION" if gin_config.macro("POPULATION") is not None else "TUNE"
    listed_members = gin_config.macro(macro)
    if listed_members is None:
        listed_members = members.DEFAULT_TUNE
    specs = members.member_specs(listed_members, macro)
    concurrency, side_by_side = configurables.population()
    halving = configurables.successive_halving() if args.tune else None
    at_once = min(concurrency, len(specs)) if side_by_side else 1
    folder, jobs = _prepare(args, specs, macro, startup, at_once)
    count = f"{len(specs)} member{'s' * (len(specs) > 1)}"
    say_once(start_block(_facts_of_all(jobs, folder, f"{count}, up to {concurrency} at a time")))
    results = train_jobs(
        jobs,
        concurrency=concurrency,
        side_by_side=side_by_side,
        halving=halving,
        startup=startup,
        profile_steps=args.profile,
        profile_folder=folder.profile,
    )
    order = best_first(results)
    by_name = {spec.name: spec for spec in specs}
    _load(args, by_name[order[0].name].flags)
    settings = {spec.name: spec.bindings for spec in specs}
    write_results(folder, results, settings, gin_config.text())
    if not is_first():
        return
    tried = "tried, the worst dropped early" if halving else "trained"
    print(format_table(order))
    print(
        f"{count} {tried}: {sum(result.step for result in results):,} steps in total; * is the "
        "best."
    )
    rows = [
        (
            "Best",
            f"{order[0].name}; also in {folder.path}/ (summary.json and the trained parameters)",
        ),
        ("Members", f"{folder.path / MEMBERS}/"),
        ("Score it", f"prompt-tuning evaluate {folder.path}"),
        ("Use it", infer_command(folder.path, jobs[0].job.data.tasks)),
        ("Report", f"prompt-tuning report {folder.path}"),
    ]
    say(f"\n{aligned(rows)}")


def _prepare(
    args: argparse.Namespace,
    specs: Sequence[MemberSpec],
    macro: str,
    startup: Startup,
    side_by_side: int,
) -> tuple[RunFolder, list[MemberJob]]:
    """Loads each member's configuration, and its data unless an earlier member has the same."""
    whole_text, whole_settings = gin_config.text(), identity.settings()
    shared = gin_config.resolved()
    where = configurables.train().path
    folder_name = "train.folder" if gin_config.macro("MODEL_DIR") is None else "MODEL_DIR"
    with startup.part("weights"):
        base = loading.load_base(configurables.data())
    splits: dict[tuple[str, str], list[TokenizedSplit]] = {}
    hashes: dict[str, str] = {}

    jobs: list[Job] = []
    configs: list[tuple[dict[str, str], str]] = []
    for spec in specs:
        bindings = [*spec.flags, ("POPULATION", "None"), ("TUNE", "None")]
        _load(args, [*bindings, (folder_name, repr(str(where / MEMBERS / spec.name)))])
        members.check_member(spec, macro, shared)
        # All that the data depend on.
        key = repr(
            [
                (name, text)
                for name, (text, _) in sorted(gin_config.resolved().items())
                if name.rpartition(".")[0] in ("data", "user_files")
            ]
        )

        def load(base: Base, data: Data, split: str, key: str = key) -> list[TokenizedSplit]:
            if (key, split) not in splits:
                splits[key, split] = load_splits(base, data, split)
            return splits[key, split]

        job = loading.prepare(base, load, startup.part, side_by_side)
        hashes.setdefault(key, job.data_hash)
        settings = {**identity.settings(), **identity.file_contents()}
        jobs.append(job)
        configs.append(({**settings, "contents of the data": hashes[key]}, gin_config.text()))

    options, rungs = jobs[0].training.options, {}
    if args.tune:
        steps = configurables.successive_halving().steps(
            members=len(specs), train_steps=options.train_steps, eval_every=options.eval_every
        )
        rungs = {"steps of the rungs": steps}
    contents = jobs[0].contents
    of_data = hashlib.sha256(json.dumps(sorted(hashes.values())).encode()).hexdigest()[:16]

    def open_all() -> tuple[RunFolder, list[RunFolder]]:
        folder = RunFolder.open(
            where,
            settings={
                **whole_settings,
                "members": ", ".join(spec.name for spec in specs),
                "dropped on the way": str(args.tune),
                **rungs,
                **contents,
                "contents of the data": of_data,
            },
            config_text=whole_text,
            compare=compare,
            overwrite=args.overwrite,
            population=True,
        )
        of_members = [
            RunFolder.open(
                where / MEMBERS / spec.name,
                settings={**contents, **settings},
                config_text=text,
                compare=compare,
                train_steps=job.training.options.train_steps,
            )
            for spec, job, (settings, text) in zip(specs, jobs, configs, strict=True)
        ]
        return folder, of_members

    folder, of_members = first_then_all(open_all)
    population = []
    for of_run, job in [(folder, jobs[0]), *zip(of_members, jobs, strict=True)]:
        of_run.write_json(task_file.FILE, run_task.described(job))
    for spec, job, of_member in zip(specs, jobs, of_members, strict=True):
        facts = {"member": {name: str(value) for name, value in spec.bindings.items()}}
        population.append(MemberJob(job=job, folder=of_member, name=spec.name, facts=facts))
    return folder, population


def _facts_of_all(jobs: Sequence[MemberJob], folder: RunFolder, members: str) -> RunFacts:
    """Returns the first member's facts with the tasks and learning rates of all members."""
    chosen = gin_config.chosen()
    each = [run_facts(member.job, **chosen) for member in jobs]

    def all_of(name: str) -> str:
        return listed(list(dict.fromkeys(str(getattr(facts, name)) for facts in each)))

    return dataclasses.replace(
        each[0],
        tasks=list(dict.fromkeys(line for facts in each for line in facts.tasks)),
        learning_rate=all_of("learning_rate"),
        batch=f"{all_of('batch')} for each of {members}",
        folder=f"{folder.path}/",
    )


def _load(args: argparse.Namespace, bindings: Sequence[tuple[str, str]]) -> None:
    """Loads the command's configuration with further bindings."""
    with_them = [*args.gin_bindings, *bindings]
    loading.load_config(argparse.Namespace(**{**vars(args), "gin_bindings": with_them}))
    configurables.processes()  # removes this process's own settings from the configuration


def format_table(results: Sequence[TrainResult]) -> str:
    """Returns a table of results, given from best to worst."""
    width = max(len("member"), *(len(result.name) for result in results))
    lines = [f"  {'member':{width}}  {'score':>7}  {'at step':>8}  {'steps':>8}  how it ended"]
    for result in results:
        score = "-" if result.best.score is None else f"{result.best.score:.4f}"
        step = "-" if result.best.step is None else f"{result.best.step:,}"
        mark = "*" if result is results[0] else " "
        lines.append(
            f"{mark} {result.name:{width}}  {score:>7}  {step:>8}  {result.step:>8,}  "
            f"{result.ended}"
        )
    return "\n".join(lines)
