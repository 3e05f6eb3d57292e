"""Memory that compiling leaves behind goes back to the system."""

import ctypes

import jax
import pytest

from prompt_tuning import host_memory
from prompt_tuning.errors import UserError

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def listener(monkeypatch):
    """What `return_memory_after_compiling` has JAX call."""
    listeners = []
    monkeypatch.setattr(jax.monitoring, "register_event_duration_secs_listener", listeners.append)
    host_memory.return_memory_after_compiling.__wrapped__()
    (found,) = listeners
    return found


def test_only_after_a_large_program_was_compiled(listener, monkeypatch):
    calls = []

    class Glibc:
        malloc_trim = staticmethod(calls.append)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Glibc)
    listener(COMPILED, 0.01, fun_name="small")
    listener("/jax/core/compile/jaxpr_trace_duration", 5.0)
    assert calls == []
    listener(COMPILED, 5.0, fun_name="train_step")
    assert calls == [0], "everything that can be given back"


def test_nothing_where_the_c_library_has_no_such_call(listener, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    listener(COMPILED, 5.0, fun_name="train_step")


def test_jax_tells_before_it_runs_what_it_compiled():
    events = []

    def listener(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            events.append("compiled")

    def running(x):
        events.append("ran")
        return x

    x = jax.numpy.ones(3)
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: jax.pure_callback(running, x, x))(x).block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert events == ["compiled", "ran"]


def test_a_call_without_room_is_refused_and_one_with_room_compiles_once(monkeypatch):
    compiled = []

    def listener(event: str, duration: float, **_: object) -> None:
        if event == COMPILED:
            compiled.append(event)

    x = jax.numpy.ones((100, 100))
    function = jax.jit(lambda x: jax.numpy.sin(x) @ x)
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        host_memory.check_memory(function, x)
        host_memory.check_memory(function, x)
        function(x).block_until_ready()
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert len(compiled) == 1
    monkeypatch.setattr(host_memory, "free_memory", lambda: 1000)
    host_memory.check_memory(function, x)  # looked at before
    with pytest.raises(UserError, match="Out of memory: a batch needs"):
        host_memory.check_memory(function, x[:50, :50] + 0)


def test_free_memory_is_known_on_linux():
    free = host_memory.free_memory()
    assert free is None or free > 2**20
