import io

import pytest

from prompt_tuning.training import screen as screen_lib
from prompt_tuning.training.screen import Screen

LOSS = {"step": 20, "loss": 0.5, "examples_per_second": 12.34, "tokens_per_second": 1234.5}
SCORE = {"step": 20, "eval/accuracy": 0.75, "eval/score": 0.75, "seconds": 3.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set."""
    now = [100.0]
    monkeypatch.setattr(screen_lib.time, "monotonic", lambda: now[0])
    return now


def test_lines_where_there_is_no_terminal(clock):
    stream = io.StringIO()
    screen = Screen(10, 40, stream)
    clock[0] += 5.0
    screen.write(LOSS)
    screen.write({**LOSS, "step": 21})  # too soon after the last line
    screen.write(SCORE)
    screen.close()
    assert stream.getvalue().splitlines() == [
        "step 20 of 40: loss 0.5000, 12.3 examples/s, 1,234 tokens/s, 00:10 left",
        "step 20: accuracy 0.7500",
    ]


def test_a_dumb_terminal_gets_lines_too(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    screen = Screen(0, 40, stream)
    clock[0] += 5.0
    screen.advance()
    screen.write(LOSS)
    screen.close()
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().startswith("step 20 of 40: loss 0.5000")


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    screen = Screen(10, 40, stream)
    for _ in range(10):
        screen.advance()
    screen.write(LOSS)
    screen.write(SCORE)
    screen.write(LOSS)
    screen.close()
    text = stream.getvalue()
    assert "20/40" in text
    assert "loss 0.5000, 12.3 examples/s, 1,234 tokens/s" in text
    assert "loss 0.5000, score 0.7500, 12.3 examples/s" in text
    assert "step 20: accuracy 0.7500\n" in text


def test_the_first_step_does_not_count_for_the_time_left(clock):
    stream = io.StringIO()
    screen = Screen(0, 101, stream)
    clock[0] += 600.0  # compiling
    screen.advance()
    for _ in range(10):
        clock[0] += 1.5
        screen.advance()
    screen.write({**LOSS, "step": 11})
    assert stream.getvalue().endswith(", 02:15 left\n")
