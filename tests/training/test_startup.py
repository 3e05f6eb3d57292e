"""The time to the first step and its parts."""

import os
import time

import pytest

from prompt_tuning.training.compile_clock import compile_clock
from prompt_tuning.training.startup import PARTS, Startup, process_start, startup_line


def test_parts_add_up_and_compiling_is_counted_where_it_belongs():
    clock = compile_clock()
    startup = Startup(started=time.time() - 2.0 - clock.read().seconds)
    with startup.part("weights"):
        time.sleep(0.05)
        # As JAX would report a compilation of 0.03 s that has just ended.
        now = time.time()
        clock.add_span("/jax/core/compile/backend_compile_duration", now - 0.03, now)
    with startup.part("data"):
        time.sleep(0.01)
    with startup.part("data"):
        time.sleep(0.01)
    seconds = startup.end()
    assert 0.01 < seconds["weights"] < 0.05
    assert seconds["data"] >= 0.02
    assert seconds["imports"] >= 2.0
    assert seconds["evaluation"] == 0.0
    assert sum(seconds[name] for name in PARTS) >= seconds["total"] - 1e-6


def test_the_line_leaves_out_what_took_no_time():
    seconds = dict.fromkeys(PARTS, 0.0) | {"total": 9.25, "imports": 2.04, "compile": 7.21}
    assert startup_line(seconds) == (
        "First step done 9.2 s after the command: imports 2.0, compile 7.2."
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
def test_the_process_started_before_now():
    assert 0 < time.time() - process_start() < 24 * 3600
    assert process_start() == pytest.approx(process_start(), abs=0.05)
