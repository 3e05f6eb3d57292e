"""`prompt-tuning results FOLDER`: prints a sweep's results as a filtered, pivoted table.

prompt-tuning results runs/lengths
prompt-tuning results runs/lengths --where task=tinyworld_rte --down model --across PROMPT_LENGTH
"""

from collections.abc import Sequence

from prompt_tuning.analysis.tables import Table
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path
from prompt_tuning.recipes.say import say
from prompt_tuning.sweeps import results

_SHOWN = ("run", "task", "score", "best_step", "steps")


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints a table, and writes results.parquet and results.csv."""
    args = parse("results", argv)
    conditions = {}
    for text in args.where:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--where is '{text}'; expected COLUMN=VALUE.")
        conditions[name] = value

    rows = results.read_rows(args.folder)
    paths = results.write_table(rows, as_path(args.folder) / "results")
    rows = results.select(rows, conditions)
    if not rows:
        raise UserError(f"No result has {', '.join(args.where)}.")
    down = [name for name in args.down.split(",") if name]
    if down or args.across:
        header, lines = results.pivot(rows, down=down, across=args.across, value=args.value)
    else:
        shown = [name for name in _SHOWN if name in rows[0]]
        header = shown
        lines = [[_text(row[name]) for name in shown] for row in rows]
    print(Table(title="", columns=header, rows=lines).text())
    say(f"{len(rows)} rows; all columns are in {' and '.join(map(str, paths))}.")


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
