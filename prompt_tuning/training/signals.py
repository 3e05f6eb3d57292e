"""Stopping on request: SIGTERM, as schedulers send before they take a machine, and Ctrl-C.

Two of them, the inner one while a run trains:

    with leave_when_interrupted():       a signal ends the process at once
        with StopRequest() as stop:      a signal is noted, and acknowledged at once; the loop
                                         looks at it between steps, saves and raises `Interrupted`

A second signal ends the process at once; nothing is lost but the steps since the last checkpoint.

Python runs a signal's handler on the main thread, between two bytecodes: not while XLA compiles,
which takes minutes for a large model. What a handler raises is lost in a callback of the garbage
collector, and turns into an ImportError in the middle of an import. So signals are heard on a
thread of their own, which ends the process without an exception.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FAREWELL = {signal.SIGINT: b"\nInterrupted.\n", signal.SIGTERM: b"\nTerminated.\n"}


class Interrupted(SystemExit):
    """Training was asked to stop, and saved. The process exits with 128 + the signal's number.

    That is 143 for SIGTERM and 130 for Ctrl-C, by which a scheduler tells a job to start again
    from one that has finished.
    """

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)
        self.signal_number = signal_number


class _Listener:
    """Calls `heard` for each signal as it comes, on a thread; `handler` is what Python runs.

    The interpreter writes the number of a signal to a file descriptor the moment it comes.
    """

    def __init__(
        self,
        numbers: tuple[int, ...],
        heard: Callable[[int], None],
        handler: Callable[[int, FrameType | None], None],
    ):
        self._heard = heard
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = {number: signal.signal(number, handler) for number in numbers}
        self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True, name="signals").start()

    def close(self) -> None:
        """Puts back what was there before. Only the main thread may."""
        signal.set_wakeup_fd(self._previous_writer)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._writer)

    def _listen(self) -> None:
        while numbers := os.read(self._reader, 64):
            for number in numbers:
                if number in self._previous:
                    self._heard(number)
        os.close(self._reader)


_leaving: _Listener | None = None
_terminal = 2


@contextlib.contextmanager
def leave_when_interrupted() -> Iterator[None]:
    """While entered, SIGINT and SIGTERM end this process at once, in one line.

    The exit status is 128 + the signal's number. For a process that is a command, not for one
    that others have made, such as a notebook's. A signal that the parent has it ignore, as nohup
    does, stays ignored.
    """
    global _leaving, _terminal
    _terminal = os.dup(2)  # its own, while TensorFlow's first lines are kept from the other
    default = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    numbers = tuple(number for number in SIGNALS if signal.getsignal(number) == default[number])
    _leaving = _Listener(numbers, _leave, lambda number, frame: None)
    try:
        yield
    finally:
        _leaving.close()
        _leaving = None


def _leave(number: int) -> None:
    # Not by `print`: the main thread may hold the stream.
    os.write(_terminal, _FAREWELL[signal.Signals(number)])
    os._exit(128 + number)


class StopRequest:
    """While entered, notes the first SIGTERM or SIGINT in `signal_number` and acknowledges it.

    Until `begin_saving` there is nothing to save yet, and a command's process is ended at once:
    the first step compiles for minutes. Python takes signals on the main thread alone; entered on
    another, it notes nothing.
    """

    def __init__(self, *, saving: bool = False):
        self.signal_number: int | None = None
        self._saving, self._count = saving, 0
        self._listener: _Listener | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._listener = _Listener(SIGNALS, self._heard, self._note)
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def begin_saving(self) -> None:
        """From here on there is something to save: a signal waits for the end of a step."""
        self._saving = True

    def _heard(self, number: int) -> None:
        self._count += 1
        if _leaving is not None and (self._count > 1 or not self._saving):
            _leave(number)
        if self._count == 1:
            self.signal_number = number
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            from tqdm import tqdm  # a tenth of a second, which the start of a command has not

            # Above the bar, if there is one.
            tqdm.write(f"Stopping after this step{again}.", file=sys.stderr)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """What Python runs. From here on a second signal does what it did before."""
        del frame
        self.signal_number = number
        self._close()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
