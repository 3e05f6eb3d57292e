"""`prompt-tuning launch`: writes a job for a scheduler, and optionally submits it.

    prompt-tuning launch slurm --nodes 4 --submit -- train --gin_file=... --gin.MODEL_DIR=...

The command after `--` is run unchanged on every machine of the job.
Templates are in `prompt_tuning/launch/templates`; docs/launching.md has an example of each.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.command_settings import COMMANDS
from prompt_tuning.cli.launch_check import check_command
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import atomic_write
from prompt_tuning.launch.arguments import add_arguments
from prompt_tuning.launch.jobs import ENGINES, render, submit
from prompt_tuning.sweeps.grid import combinations, grid_axes


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    at = argv.index("--") if "--" in argv else len(argv)
    own, command = list(argv[:at]), list(argv[at + 1 :])
    name, rest = (own[0], own[1:]) if own and not own[0].startswith("-") else (None, own)
    if name is None:
        _describe().parse([*rest, *([] if rest else ["--help"])])
        raise UserError(f"No engine: expected {', '.join(ENGINES)}. See prompt-tuning launch.")
    if name not in ENGINES:
        raise UserError(
            f"Unknown engine '{name}'; expected {', '.join(ENGINES)}.{did_you_mean(name, ENGINES)}"
        )
    engine = ENGINES[name]
    args = _parser(name).parse(rest)
    if not command:
        raise UserError(
            "There is no command to launch; write it after --, such as: prompt-tuning launch "
            "slurm --nodes 4 -- train --gin_file=..."
        )
    if command[0] not in COMMANDS:
        raise UserError(
            f"Unknown command '{command[0]}' after --; expected one of this program's, such as "
            f"train.{did_you_mean(command[0], COMMANDS)}"
        )
    options = vars(args)
    sweep, folder = dict(options.get("sweep", ())), options.get("folder", "runs")
    options["members"] = _member_flags(sweep, folder)
    template = Path(args.template).absolute() if args.template else engine.template
    text = render(template, command, options)
    if not args.no_check:
        check_command(command, workdir=args.workdir, sweep=sweep, folder=folder)
    if args.output is None and not args.submit:
        print(text, end="")
        return
    path = Path(args.output or f"{args.name}.{engine.file}")
    with atomic_write(path, fix="Give another --output.") as file:
        file.write(text.encode())
    if args.submit:
        submit(engine, path)
    else:
        print(f"Wrote {path}; submit it with: {' '.join([*engine.program, str(path)])}")


def _member_flags(sweep: Mapping[str, Sequence[str]], folder: str) -> list[str]:
    """Returns the flags of each combination of values, including a run folder named after it."""
    members: dict[str, str] = {}
    for settings in combinations(grid_axes(sweep)) if sweep else ():
        words = {macro: re.sub(r"[^-\w.]+", "_", value) for macro, value in settings.items()}
        name = ",".join(f"{macro}={word.strip('_')}" for macro, word in words.items())
        if name in members:
            raise UserError(
                f"Two runs of the sweep would have the same folder, {folder}/{name}; remove "
                "duplicate values."
            )
        flags = [f"--gin.{macro}={value}" for macro, value in settings.items()]
        members[name] = shlex.join([*flags, f"--gin.MODEL_DIR={folder.rstrip('/')}/{name}"])
    return list(members.values())


def _describe() -> Parser:
    width = max(map(len, ENGINES)) + 2
    engines = "\n".join(f"  {name:{width}}{engine.summary}" for name, engine in ENGINES.items())
    return Parser(
        "launch",
        "Writes a job for a scheduler, and optionally submits it.\n\nusage: prompt-tuning launch "
        f"ENGINE [--help] ... -- COMMAND ...\n\nengines:\n{engines}",
        gin=False,
    )


def _parser(engine: str) -> Parser:
    parser = Parser(f"launch {engine}", ENGINES[engine].summary, gin=False)
    add_arguments(parser, engine)
    add = parser.add_argument
    add("--output", metavar="FILE", help="write the job to this file (default: print it)")
    add("--submit", action="store_true", help="submit the job with the engine's program")
    add(
        "--no_check",
        action="store_true",
        help="don't check the command first, for gin files that are only on the cluster",
    )
    return parser
