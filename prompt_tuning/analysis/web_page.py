"""A web page in one file, that opens without a network: its elements, and the page around them.

    scores = table(["task", "score"], [["rte", 0.9]])
    text = page("rte", kind="run", remark="", parts={"Scores": [scores]})

Whatever isn't `Html` is escaped, so that nothing out of a file can become a part of the page. Its
style and its script are the files of `assets/report`; the page's own policy forbids the browser to
load anything, and to run any other script. Charts are in `svg_charts.py`.
"""

import base64
import dataclasses
import hashlib
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MARK = '<meta name="generator" content="prompt-tuning report">'
"""Stands near the beginning of every page, to tell one from other files."""

NOTHING = "-"
"""What stands where there is no value."""

_ASSETS = Path(__file__).parents[1] / "assets" / "report"
_MINUTE, _HOUR = 60, 3600


class Html(str):
    """Text that is HTML already; every other text is escaped."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Sorted:
    """A table's cell that is shown in one way and sorted by another value."""

    shown: Any
    key: int | float | str


def markup(value: Any) -> Html:
    """Returns a value as HTML, escaped unless it is HTML already."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def element(tag: str, *children: Any, **attributes: Any) -> Html:
    """Returns an element; `class_` is "class", `data_key` "data-key", None leaves one out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{given}>{''.join(map(markup, children))}</{tag}>")


def joined(parts: Iterable[Any]) -> Html:
    """Returns the parts one after another."""
    return Html("".join(map(markup, parts)))


def number(value: Any) -> str:
    """Returns a number for people: thousands apart, three decimals; other values as they are."""
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
    """Returns seconds as hours, minutes and seconds."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return NOTHING
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min {int(seconds % _MINUTE)} s"
    return f"{int(seconds // _HOUR)} h {int(seconds % _HOUR // _MINUTE)} min"


def table(
    columns: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    caption: Any = None,
    sortable: bool = False,
    class_: str | None = None,
) -> Html:
    """Returns a table in a frame that scrolls sideways where it is wider than the page.

    Args:
      columns: their names.
      rows: cells: numbers, texts, None, `Html` or `Sorted`.
      caption: what it shows.
      sortable: a click on a column's name sorts by it.
      class_: of the table, for its style.
    """
    rows = [list(row) for row in rows]
    numeric = [any(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    heads = [
        element(
            "th",
            element("button", name, type="button") if sortable else name,
            scope="col",
            class_="n" if right else None,
        )
        for name, right in zip(columns, numeric, strict=True)
    ]
    body = [
        element("tr", *(_cell(cell, right) for cell, right in zip(row, numeric, strict=True)))
        for row in rows
    ]
    classes = " ".join(name for name in ("sortable" if sortable else "", class_ or "") if name)
    # The caption stands outside of what scrolls.
    return element(
        "figure",
        element("figcaption", caption) if caption else Html(),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", *heads)),
                element("tbody", *body),
                class_=classes or None,
            ),
            class_="scroll",
        ),
        class_="frame",
    )


def _is_number(cell: Any) -> bool:
    value = cell.key if isinstance(cell, Sorted) else cell
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(cell: Any, right: bool) -> Html:
    if isinstance(cell, Sorted):
        return element("td", cell.shown, class_="n" if right else None, data_key=cell.key)
    key = cell if _is_number(cell) else None
    shown = cell if isinstance(cell, str) else number(cell)
    return element("td", shown, class_="n" if right else None, data_key=key)


def named_values(values: Mapping[str, Any]) -> Html:
    """Returns names and what they stand for, a line each; None is left out."""
    lines = [
        element("div", element("dt", name), element("dd", _value(value)))
        for name, value in values.items()
        if value is not None
    ]
    return element("dl", *lines, class_="values")


def _value(value: Any) -> Any:
    return value if isinstance(value, str) else number(value)


def cards(values: Mapping[str, tuple[Any, Any]]) -> Html:
    """Returns the numbers that matter most, each under its name and over a remark."""
    return element(
        "ul",
        *(
            element(
                "li",
                element("span", name, class_="name"),
                element("strong", value),
                element("span", remark, class_="remark"),
            )
            for name, (value, remark) in values.items()
        ),
        class_="cards",
    )


def folded(summary: Any, *content: Any, is_open: bool = False, id_: str | None = None) -> Html:
    """Returns what shows itself when its summary is clicked on."""
    opened = {"open": ""} if is_open else {}
    return element("details", element("summary", summary), *content, id=id_, **opened)


def code(text: str) -> Html:
    """Returns lines of text as they stand."""
    return element("pre", text)


def note(text: Any) -> Html:
    """Returns a remark."""
    return element("p", text, class_="note")


def section(name: str, *content: Any) -> Html:
    """Returns a part of the page under a heading, which the page's contents name."""
    return element("section", element("h2", name), *content, id=anchor(name))


def anchor(name: str) -> str:
    """Returns the address of a section within the page."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def page(title: str, *, kind: str, remark: Any, parts: Mapping[str, Sequence[Any]]) -> str:
    """Returns the whole page.

    Args:
      title: what it is on.
      kind: what that is, such as "run".
      remark: a line under the title.
      parts: the contents of each section by its name; one whose name is empty has no heading.
    """
    style = (_ASSETS / "page.css").read_text(encoding="utf-8")
    script = (_ASSETS / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{digest}'",
        ]
    )
    links = [element("a", name, href=f"#{anchor(name)}") for name in parts if name]
    sections = [
        section(name, *content) if name else element("section", *content)
        for name, content in parts.items()
    ]
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"{MARK}\n"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{element('title', f'{title} - prompt-tuning')}\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header><p class='kind'>{markup(kind)}</p>{element('h1', title)}"
        f"<p class='remark'>{markup(remark)}</p>{element('nav', *links)}</header>\n"
        f"<main>\n{joined(sections)}\n</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )
