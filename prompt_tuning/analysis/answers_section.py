"""What a run answered, on its page: scores of each class, confusions and the wrong answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.analysis import web_page
from prompt_tuning.analysis.class_scores import class_scores, is_right, wrong_answers
from prompt_tuning.analysis.web_page import Html, element, folded, note

Row = Mapping[str, Any]

_MOST_WRONG = 100
_SHOWN_APART = ("task", "targets", "prediction")


def answers_section(answers: Mapping[str, Sequence[Row]]) -> list[Html]:
    """Returns the section's parts.

    Args:
      answers: rows of predictions with their targets, by what they are of.
    """
    parts = []
    for name, rows in answers.items():
        for task in dict.fromkeys(str(row.get("task", "")) for row in rows):
            own = [row for row in rows if str(row.get("task", "")) == task]
            parts += _of_task(f"{task}, {name}" if task else name, own)
    return parts or [note("No predictions with known targets are in the run folder.")]


def _of_task(title: str, rows: Sequence[Row]) -> list[Html]:
    right = sum(map(is_right, rows))
    told = f"{right:,} of {len(rows):,} answers are the target, {right / len(rows):.4f}"
    parts = [element("h3", title), element("p", f"{told}.")]
    if found := class_scores(rows):
        tables = [found.scores_table, found.confusion_table]
        shown = [web_page.table(each.columns, each.rows, caption=each.title) for each in tables]
        parts.append(element("div", *shown, class_="beside"))
    if wrong := wrong_answers(rows):
        first = f", the first {_MOST_WRONG}" if len(wrong) > _MOST_WRONG else ""
        parts.append(
            folded(
                f"{len(wrong):,} wrong answers{first}",
                _wrong(wrong[:_MOST_WRONG]),
                is_open=len(wrong) <= 10,
            )
        )
    return parts


def _wrong(rows: Sequence[Row]) -> Html:
    others = dict.fromkeys(name for row in rows for name in row if name not in _SHOWN_APART)
    # Texts say more than numbers, so they come first where there are any.
    names = ["inputs"] if "inputs" in others else list(others)
    return web_page.table(
        [*names, "target", "answer"],
        [
            [
                *(_text(row.get(name)) for name in names),
                _text(row.get("targets")),
                _text(row.get("prediction")),
            ]
            for row in rows
        ],
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    return "" if value is None else str(value)
