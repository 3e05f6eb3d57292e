"""`prompt-tuning train` with POPULATION, or with `--tune`: many prompts at once.

    MODEL_DIR/members/NAME/     the run folder of a member, as if it had been trained alone
    MODEL_DIR/prompt_best.*     the best prompt of all
    MODEL_DIR/config.gin        that member's configuration, so that `evaluate MODEL_DIR` scores it
    MODEL_DIR/summary.json      its summary, and a table of all members

How a list of members is written is in `members.py`; how they train, in `training/population.py`.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.checkpoints.adapter_files import BEST_ADAPTER, BEST_PROMPT
from prompt_tuning.cli import configurables, gin_config, identity, members, run_task, session
from prompt_tuning.cli.configurables import Base, Data
from prompt_tuning.cli.members import MemberSpec
from prompt_tuning.cli.next_commands import infer_command
from prompt_tuning.cli.run_block import RunFacts, aligned, run_facts, start_block
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError, listed
from prompt_tuning.evaluation.evaluator import Inject
from prompt_tuning.files import atomic_write
from prompt_tuning.parallel.mesh import shard_members
from prompt_tuning.recipes import prompts, scoring, task_file
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.train import facts, saver
from prompt_tuning.training.halving import Halving, ranked
from prompt_tuning.training.optimizers import Optimizer
from prompt_tuning.training.places import program_size, program_sizes
from prompt_tuning.training.population import Evaluate, Member, MemberResult, train_population
from prompt_tuning.training.run import Evaluation
from prompt_tuning.training.run_folder import FIX, MEMBERS, RunFolder
from prompt_tuning.training.startup import Startup
from prompt_tuning.training.step import injection_loss_fn


def train(args: argparse.Namespace, startup: Startup) -> list[MemberResult]:
    """Trains the members that the loaded configuration lists, and prints a table of them.

    Args:
      args: the command's, whose configuration is loaded.
      startup: of the command, told as its parts begin.

    Raises:
      UserError: the members can't be one population, or training fails.
    """
    macro = "POPULATION" if gin_config.macro("POPULATION") is not None else "TUNE"
    listed = gin_config.macro(macro)
    specs = members.member_specs(members.DEFAULT_TUNE if listed is None else listed, macro)
    places, side_by_side = configurables.population()
    halving = configurables.successive_halving() if args.tune else None
    folder, population, evaluate = _prepare(args, specs, macro, places, startup)
    first = population[0].job
    members_text = f"{len(specs)} member{'s' * (len(specs) > 1)}, up to {places} at a time"
    session.say(start_block(_facts_of_all(population, folder, members_text)))
    if first.training.teachers is not None:
        raise UserError("Members of a population have no teachers; leave out train.teachers.")
    results = train_population(
        [member.member for member in population],
        loss_fn=injection_loss_fn(first.base.model, first.training.loss),
        frozen=first.base.params,
        evaluate=evaluate,
        places=places,
        side_by_side=side_by_side,
        halving=halving,
        place=lambda batch: shard_members(batch, first.base.mesh),
    )
    best = _best(results)
    _write_results(args, folder, specs, results, best)
    print(format_table(specs, results, best, halving))
    rows = [
        ("Best", f"{best.name}; also in {folder.path}/ (summary.json and what it trained)"),
        ("Members", f"{folder.path / MEMBERS}/"),
        ("Score it", f"prompt-tuning evaluate {folder.path}"),
        ("Use it", infer_command(folder.path, first.data.tasks)),
        ("Report", f"prompt-tuning report {folder.path}"),
    ]
    session.say(f"\n{aligned(rows)}")
    return results


class _Prepared:
    """A member ready to train; `data_key` tells whose data are the same."""

    def __init__(self, job: Job, data_key: str):
        self.job, self.data_key = job, data_key
        self.settings: dict[str, str] = {}
        self.config_text = ""
        self.member: Member


def _prepare(
    args: argparse.Namespace,
    specs: Sequence[MemberSpec],
    macro: str,
    places: int,
    startup: Startup,
) -> tuple[RunFolder, list[_Prepared], Evaluate]:
    """Loads each member's configuration in turn, and what it needs that isn't there yet."""
    whole_text, whole_settings = gin_config.text(), identity.settings()
    shared = gin_config.resolved()
    where = configurables.train().path
    folder_name = "train.folder" if gin_config.macro("MODEL_DIR") is None else "MODEL_DIR"
    with startup.part("weights"):
        base = session.load_base(configurables.data())
    splits: dict[tuple[str, str], list[TokenizedSplit]] = {}

    population: list[_Prepared] = []
    for spec in specs:
        bindings = [*spec.flags, ("POPULATION", "None"), ("TUNE", "None")]
        _load(args, [*bindings, (folder_name, repr(str(where / MEMBERS / spec.name)))])
        members.check_member(spec, macro, shared)
        key = _data_key()

        def load(base: Base, data: Data, split: str, key: str = key) -> list[TokenizedSplit]:
            if (key, split) not in splits:
                splits[key, split] = load_splits(base, data, split)
            return splits[key, split]

        prepared = _Prepared(session.prepare(base, load, startup.part), key)
        prepared.config_text = gin_config.text()
        prepared.settings = {**identity.settings(), **identity.file_contents()}
        population.append(prepared)

    options, rungs = population[0].job.training.options, None
    if args.tune:
        rungs = configurables.successive_halving().steps(
            members=len(specs), train_steps=options.train_steps, eval_every=options.eval_every
        )
    contents = population[0].job.contents
    hashes = {each.data_key: each.job.data_hash for each in population}
    of_data = hashlib.sha256(json.dumps(sorted(hashes.values())).encode()).hexdigest()[:16]
    folder = RunFolder.open(
        where,
        settings={
            **whole_settings,
            "members": ", ".join(spec.name for spec in specs),
            "dropped on the way": str(args.tune),
            **({} if rungs is None else {"steps of the rungs": rungs}),
            **contents,
            "contents of the data": of_data,
        },
        config_text=whole_text,
        compare=identity.compare,
        overwrite=args.overwrite,
        population=True,
    )
    folder.write_json(task_file.FILE, run_task.described(population[0].job))
    for spec, each in zip(specs, population, strict=True):
        of_member = RunFolder.open(
            where / MEMBERS / spec.name,
            settings={
                **each.settings,
                **contents,
                "contents of the data": hashes[each.data_key],
            },
            config_text=each.config_text,
            compare=identity.compare,
            train_steps=each.job.training.options.train_steps,
        )
        of_member.write_json(task_file.FILE, run_task.described(each.job))
        each.member = _member(spec, each.job, of_member)
    return folder, population, _evaluator(population, places)


def _facts_of_all(population: Sequence[_Prepared], folder: RunFolder, members: str) -> RunFacts:
    """The first member's facts, with the methods and learning rates of all."""
    each = [run_facts(member.job) for member in population]

    def all_of(name: str) -> str:
        return listed(list(dict.fromkeys(str(getattr(facts, name)) for facts in each)))

    return dataclasses.replace(
        each[0],
        tasks=list(dict.fromkeys(line for facts in each for line in facts.tasks)),
        learning_rate=all_of("learning_rate"),
        batch=f"{all_of('batch')} for each of {members}",
        folder=f"{folder.path}/",
    )


def _member(spec: MemberSpec, job: Job, folder: RunFolder) -> Member:
    optimizer = job.training.optimizer
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            "The optimizer of a population must be @adafactor() or @adamw(), or made by "
            "`Optimizer.of`, so that members can have learning rates of their own; "
            f"train.optimizer is a {type(optimizer).__name__}."
        )
    return Member(
        name=spec.name,
        folder=folder,
        options=job.training.options,
        method=job.method,
        optimizer=optimizer,
        trained=job.trained,
        batches=job.stream.batch,
        save_best=saver(job, folder),
        facts={**facts(job), "member": {name: str(value) for name, value in spec.bindings.items()}},
    )


def _load(args: argparse.Namespace, bindings: Sequence[tuple[str, str]]) -> None:
    """Loads the command's configuration with more bindings after its own."""
    with_them = [*args.gin_bindings, *bindings]
    session.load_config(argparse.Namespace(**{**vars(args), "gin_bindings": with_them}))


def _data_key() -> str:
    """What the loaded configuration's data depend on."""
    resolved = gin_config.resolved()
    return "; ".join(
        f"{name} = {text}"
        for name, (text, _) in sorted(resolved.items())
        if name.rpartition(".")[0] in ("data", "user_files")
    )


def _evaluator(population: Sequence[_Prepared], places: int) -> Evaluate:
    """Returns what scores many members: those with the same data in one pass."""
    sizes = program_sizes(min(places, len(population)))
    by_name = {each.member.name: each for each in population}

    @functools.cache
    def scorers(key: str) -> tuple[scoring.Score, Callable[[Sequence[Inject]], list[Evaluation]]]:
        job = next(each.job for each in population if each.data_key == key)
        arguments = job.base, job.data, job.prediction, job.development_splits
        return scoring.scorer(*arguments), scoring.scorer_of_many(*arguments)

    def evaluate(due: Sequence[Member], numbers: Sequence[Any]) -> list[Evaluation]:
        groups: dict[str, list[int]] = {}
        for place, member in enumerate(due):
            groups.setdefault(by_name[member.name].data_key, []).append(place)
        found: dict[int, Evaluation] = {}
        for key, group in groups.items():
            injects = [prompts.inject_folded(due[i].method, numbers[i]) for i in group]
            score_one, score_many = scorers(key)
            if len(injects) == 1:
                evaluations = [score_one(injects[0])]
            else:
                size = program_size(len(injects), sizes)
                evaluations = score_many([*injects, *injects[:1] * (size - len(injects))])
            found.update(zip(group, evaluations, strict=False))
        return [found[place] for place in range(len(due))]

    return evaluate


def _best(results: Sequence[MemberResult]) -> MemberResult:
    names = ranked({result.name: _standing(result) for result in results})
    return next(result for result in results if result.name == names[0])


def _standing(result: MemberResult) -> tuple[float, int]:
    score = math.nan if result.best.score is None else result.best.score
    return score, result.best.step or 0


def _write_results(
    args: argparse.Namespace,
    folder: RunFolder,
    specs: Sequence[MemberSpec],
    results: Sequence[MemberResult],
    best: MemberResult,
) -> None:
    """Copies the best member's prompt and configuration, and writes the summary of all."""
    by_name = {spec.name: spec for spec in specs}
    of_best = RunFolder(folder.path / MEMBERS / best.name)
    for stem in (BEST_PROMPT, BEST_ADAPTER):
        for found in sorted(of_best.path.glob(f"{stem}.*")):
            with atomic_write(folder.path / found.name, fix=FIX) as file:
                file.write(found.read_bytes())
    _load(args, by_name[best.name].flags)
    folder.write_text("config.gin", gin_config.text())
    table: list[Mapping[str, Any]] = [
        {
            "name": result.name,
            "settings": {key: str(value) for key, value in by_name[result.name].bindings.items()},
            "score": result.best.score,
            "metrics": result.best.metrics,
            "best_step": result.best.step,
            "steps": result.step,
            "ended": result.ended,
        }
        for result in results
    ]
    summary = json.loads(of_best.summary.read_text())
    folder.write_json("summary.json", {"best": best.name, **summary, "members": table})


def format_table(
    specs: Sequence[MemberSpec],
    results: Sequence[MemberResult],
    best: MemberResult,
    halving: Halving | None = None,
) -> str:
    """Returns a line for each member, the best first."""
    by_name = {result.name: result for result in results}
    order = ranked({result.name: _standing(result) for result in results})
    width = max(len("member"), *(len(spec.name) for spec in specs))
    lines = [f"  {'member':{width}}  {'score':>7}  {'at step':>8}  {'steps':>8}  how it ended"]
    for name in order:
        result = by_name[name]
        score = "-" if result.best.score is None else f"{result.best.score:.4f}"
        step = "-" if result.best.step is None else f"{result.best.step:,}"
        mark = "*" if name == best.name else " "
        lines.append(
            f"{mark} {name:{width}}  {score:>7}  {step:>8}  {result.step:>8,}  {result.ended}"
        )
    made = sum(result.step for result in results)
    kind = "tried, the worst dropped on the way" if halving else "trained"
    members = f"{len(results)} member{'s' * (len(results) > 1)}"
    lines.append(f"{members} {kind}: {made:,} steps in all; * is the best.")
    return "\n".join(lines)
