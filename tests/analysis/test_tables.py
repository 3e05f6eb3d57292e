"""Tables as text, Markdown and CSV, and a report of them."""

import csv
import io

import pytest

from prompt_tuning.analysis.tables import Table, report_folder, write_report
from prompt_tuning.errors import UserError

TABLE = Table(
    title="Scores.",
    columns=["prompt", "score", "n"],
    rows=[["a|b", 1 / 3, 7], ["rte, seed 0", None, 12]],
)


def test_text_is_aligned_with_numbers_to_the_right():
    assert TABLE.text().splitlines() == [
        "prompt       score   n",
        "a|b          0.333   7",
        "rte, seed 0         12",
    ]


def test_markdown_escapes_what_would_end_a_cell():
    assert r"| a\|b | 0.333 | 7 |" in TABLE.markdown().splitlines()


def test_csv_keeps_every_digit():
    header, first, second = csv.reader(io.StringIO(TABLE.csv()))
    assert header == ["prompt", "score", "n"]
    assert float(first[1]) == 1 / 3
    assert second == ["rte, seed 0", "", "12"]


def test_report_holds_tables_and_their_pictures(tmp_path):
    folder = report_folder(str(tmp_path / "new" / "report"))
    pictures = [folder / "other.png", folder / "scores.png"]
    report = write_report(folder, "Title", {"scores": TABLE}, pictures).read_text()
    assert report.startswith("# Title\n")
    assert report.index("| prompt |") < report.index("scores.png") < report.index("other.png")
    assert (folder / "scores.csv").read_text() == TABLE.csv()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Can't write .*file/report"):
        report_folder(str(tmp_path / "file" / "report"))
