"""Renders self-contained web pages: the Jinja environment of the templates.

Everything except `Markup` is escaped, so text from files can't inject HTML. The page's content
security policy forbids loading any resource and running any script except `page.js`.
"""

import base64
import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from prompt_tuning.analysis.figures import COLORS

MARK = '<meta name="generator" content="prompt-tuning report">'
"""Marker near the beginning of every page, to recognize our pages."""

NOTHING = "-"
"""The placeholder for a missing value."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Sorted:
    """A table cell with separate values to show and to sort by."""

    shown: Any
    key: int | float | str


def setting(value: Any) -> Any:
    """Returns a setting unformatted, 0.0003 and not 3.00e-04; numbers sort by value."""
    try:
        return Sorted(str(value), value if isinstance(value, int) else float(value))
    except (TypeError, ValueError):
        return str(value)


def run_name(name: str, kind: str = "run") -> Markup:
    """Returns the name of a run or member, with its CSS class."""
    return Markup('<span class="{}">{}</span>').format(kind, name)


def number(value: Any) -> str:
    """Formats a number with thousands separators and three decimals; other values by `str`."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value and abs(value) < 0.001:
        return f"{value:.2e}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.1f}"


def duration(seconds: Any) -> str:
    """Formats seconds as hours, minutes and seconds."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def render(template: str, **values: Any) -> str:
    """Returns a page.

    Args:
      template: a file in `templates/`.
      values: the template's variables.
    """
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            mark=Markup(MARK), policy=Markup(policy), script=Markup(script), colors=COLORS, **values
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "numeric_columns": _numeric_columns,
        "sort_key": _sort_key,
        "shown": _shown,
    }
    return environment


def _sort_key(cell: Any) -> int | float | str | None:
    if isinstance(cell, Sorted):
        return cell.key
    return cell if isinstance(cell, int | float) and not isinstance(cell, bool) else None


def _numeric_columns(rows: Sequence[Sequence[Any]]) -> list[bool]:
    """Returns whether each column contains a number, to align it right."""
    return [
        any(isinstance(_sort_key(cell), int | float) for cell in column)
        for column in zip(*rows, strict=True)
    ]


def _shown(cell: Any) -> str:
    value = cell.shown if isinstance(cell, Sorted) else cell
    return value if isinstance(value, str) else number(value)
