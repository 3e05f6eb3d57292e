import pytest

from prompt_tuning.recipes import counting
from prompt_tuning.recipes.counting import Counting, counted


def size(batch):
    return len(batch[1])


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds(clock, capsys):
    for _ in counted(
        [("a", range(3)), ("b", range(3)), ("c", range(2))], "rte validation", 8, size=size
    ):
        clock[0] += 6.0
    assert capsys.readouterr().err == "rte validation: 6 of 8 examples, 00:04 left\n"


def test_nothing_where_it_is_quick_or_not_shown(clock, capsys):
    assert list(counted([("a", range(3))], "x", 3, size=size)) == [("a", range(3))]
    for _ in counted([("a", range(3)), ("b", range(3))], "x", 6, size=size, shown=False):
        clock[0] += 60.0
    assert capsys.readouterr().err == ""


def test_an_unknown_total(clock, capsys):
    answered = Counting("Answered", None, "lines")
    clock[0] += 60.0
    answered.add(1234)
    answered.close()
    assert capsys.readouterr().err == "Answered: 1,234 lines\n"
