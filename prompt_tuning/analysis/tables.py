"""Tables as text for a terminal, as Markdown and as CSV."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prompt_tuning.files import writing

Cell = str | int | float | None
"""A value in a table; None is an empty cell."""

_FIX = "Give a folder that can be written to."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a title.

    Attributes:
      title: one line.
      columns: names.
      rows: a cell per column. Floats have three decimals, but full precision in CSV.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> str:
        """Returns the table as aligned text, with numbers to the right."""
        cells = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        numeric = [
            all(not isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))
        ]
        return "\n".join(
            "  ".join(
                f"{cell:>{width}}" if right else f"{cell:{width}}"
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ).rstrip()
            for row in cells
        )

    def markdown(self) -> str:
        """Returns a Markdown table under its title."""
        lines = [list(self.columns), ["---"] * len(self.columns)]
        lines += [[_escaped(_shown(cell)) for cell in row] for row in self.rows]
        return f"{self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """Returns the table as CSV with a header; numbers keep full precision."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return file.getvalue()


def write_report(
    folder: Path,
    title: str,
    tables: Mapping[str, Table],
    pictures: Iterable[Path] = (),
) -> Path:
    """Writes each table as CSV, and all tables and figures as `report.md`.

    Args:
      folder: an existing folder.
      title: the heading.
      tables: by file name, without a suffix.
      pictures: PNGs in the folder; one with a table's name follows that table.

    Returns:
      The path of `report.md`.

    Raises:
      UserError: a file can't be written.
    """
    pictures = list(pictures)
    parts = [f"# {title}\n"]
    for name, table in tables.items():
        _write(folder / f"{name}.csv", table.csv())
        parts.append(table.markdown())
        parts += [_image(path) for path in pictures if path.stem == name]
    parts += [_image(path) for path in pictures if path.stem not in tables]
    return _write(folder / "report.md", "\n".join(parts))


def report_folder(path: str) -> Path:
    """Creates a folder for a report; raises UserError if that fails."""
    folder = Path(path)
    with writing(folder, fix=_FIX):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(path: Path, text: str) -> Path:
    with writing(path, fix=_FIX):
        path.write_text(text, encoding="utf-8")
    return path


def _image(path: Path) -> str:
    return f"![{path.stem}]({path.name})\n"


def _shown(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return "" if cell is None else str(cell)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
