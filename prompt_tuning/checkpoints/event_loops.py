"""Event loops that wait for everything that was started in them.

Orbax reads all arrays of a checkpoint at once, and closes its event loop on the first error.
TensorStore's threads then report the other reads to a closed loop, each with a traceback on stderr.
"""

import asyncio
import contextlib
from collections.abc import Iterator


class _PatientLoop(asyncio.SelectorEventLoop):
    """Closes once its tasks have ended; of their errors the first alone is raised."""

    def close(self) -> None:
        if not self.is_closed():
            self.set_exception_handler(lambda loop, context: None)
            while tasks := asyncio.all_tasks(self):
                self.run_until_complete(asyncio.wait(tasks))
        super().close()


@contextlib.contextmanager
def patient_event_loops() -> Iterator[None]:
    """Within it, new event loops wait for their tasks before they close."""
    make = asyncio.new_event_loop
    asyncio.new_event_loop = _PatientLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = make
