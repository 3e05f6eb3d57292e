"""Stopping on request: SIGTERM, as schedulers send before they take a machine, and Ctrl-C.

The first signal only sets a flag, which the loop looks at between steps: it then saves a
checkpoint and raises `Interrupted`. A second one ends the process at once; nothing is lost but
the steps since the last checkpoint.
"""

import signal
import threading
from types import FrameType


class Interrupted(SystemExit):
    """Training was asked to stop, and saved. The process exits with 128 + the signal's number.

    That is 143 for SIGTERM and 130 for Ctrl-C, by which a scheduler tells a job to start again
    from one that has finished.
    """

    def __init__(self, signal_number: int):
        super().__init__(128 + signal_number)
        self.signal_number = signal_number


class StopRequest:
    """While entered, notes the first SIGTERM or SIGINT in `signal_number`.

    Python takes signals on the main thread alone; entered on another, it notes nothing.
    """

    def __init__(self):
        self.signal_number: int | None = None
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
