"""Compiling is counted, each second once."""

import jax
import jax.numpy as jnp
import pytest

from prompt_tuning.training.compile_clock import CompileClock, compile_clock

TRACE = "/jax/core/compile/jaxpr_trace_duration"
COMPILED = "/jax/core/compile/backend_compile_duration"


def test_what_is_inside_another_span_is_counted_once():
    clock = CompileClock()
    clock.add_span(TRACE, 1.0, 2.0, fun_name="inner")
    clock.add_span(TRACE, 3.0, 3.5)
    clock.add_span(TRACE, 0.5, 4.0, fun_name="outer")
    clock.add_span(COMPILED, 4.0, 6.0)
    clock.add_span("/jax/something/else", 6.0, 9.0)
    assert clock.read() == (1, 0, pytest.approx(5.5))


def test_two_threads_at_once_are_one_time():
    clock = CompileClock()
    clock.add_span(COMPILED, 0.0, 2.0)
    clock.add_span(COMPILED, 1.0, 3.0)
    assert clock.read() == (2, 0, pytest.approx(3.0))


def test_jax_tells_it():
    clock = compile_clock()
    x = jnp.ones(7)
    before = clock.read()

    @jax.jit
    def f(x):
        return jnp.sin(x) * 2.0

    f(x)
    after = clock.read()
    assert after.programs == before.programs + 1
    assert after.seconds > before.seconds
    f(x)
    assert clock.read() == after
