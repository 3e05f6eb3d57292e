"""Graceful stops on Ctrl-C and SIGTERM, which schedulers send before they preempt a machine.

Two context managers, the inner one while a run trains:

    with leave_when_interrupted():       a signal ends the process at once
        with StopRequest() as stop:      a signal is acknowledged at once; the loop checks for it
                                         between steps, saves and raises `Interrupted`

A second signal ends the process at once; only the steps since the last checkpoint are lost.

Python runs signal handlers on the main thread, between two bytecodes, so not while XLA compiles,
which takes minutes for a large model. An exception raised by a handler is lost in a callback of the
garbage collector, and becomes an ImportError in the middle of an import. So a separate thread
listens for signals, and ends the process without an exception.
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
    """Training was stopped and saved. The process exits with 128 + the signal's number.

    That is 143 for SIGTERM and 130 for Ctrl-C; schedulers use it to restart an unfinished job.
    """

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)
        self.signal_number = signal_number


class _Listener:
    """Calls `heard` on a thread for each signal; `handler` is the regular Python handler.

    The interpreter writes a signal's number to a file descriptor as soon as it arrives.
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
        """Restores the previous handlers; call it on the main thread only."""
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
    """Ends this process at once, with a one-line message, on SIGINT or SIGTERM while entered.

    The exit status is 128 + the signal's number. Use it for a command's process, not within
    another program's, such as a notebook. A signal that the parent process set to be ignored, as
    with nohup, stays ignored.
    """
    global _leaving, _terminal
    _terminal = os.dup(2)  # a copy, as 2 is redirected while TensorFlow prints its first lines
    default = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    numbers = tuple(number for number in SIGNALS if signal.getsignal(number) == default[number])
    _leaving = _Listener(numbers, _leave, lambda number, frame: None)
    try:
        yield
    finally:
        _leaving.close()
        _leaving = None


def _leave(number: int) -> None:
    # Not `print`: the main thread may have locked the stream.
    os.write(_terminal, _FAREWELL[signal.Signals(number)])
    os._exit(128 + number)


class StopRequest:
    """Stores the first SIGTERM or SIGINT in `signal_number`, and acknowledges it, while entered.

    Before `begin_saving` there is nothing to save, so a command's process ends at once: the first
    step compiles for minutes. Python handles signals on the main thread only; entered on another
    thread, this stores nothing.
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
        """Makes signals wait for the end of a step from now on, so that it can be saved."""
        self._saving = True

    def _heard(self, number: int) -> None:
        self._count += 1
        if _leaving is not None and (self._count > 1 or not self._saving):
            _leave(number)
        if self._count == 1:
            self.signal_number = number
            again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            from tqdm import tqdm  # not at the top: it would slow down the start of every command

            # Above the bar, if there is one.
            tqdm.write(f"Stopping after this step{again}.", file=sys.stderr)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal in Python; restores the previous handlers for a second one."""
        del frame
        self.signal_number = number
        self._close()

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
