"""SIGTERM and Ctrl-C: finish the step, save, leave."""
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The run was stopped by a signal, and everything is saved."""


class StopSignal:
    """Remembers, inside its `with` block, that the process was asked to stop."""

    def __init__(self):
        self.received = False
        self._at_once = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, *_) -> None:
        self.received = True
        if self._at_once:
            raise Stopped

    @contextmanager
    def at_once(self, alone: bool) -> Iterator[None]:
        """While nothing can be lost: stop without waiting for the next step.

        Args:
            alone: whether there are no other processes, which would wait for this one in vain.

        Raises:
            Stopped: at a signal, now or before.
        """
        self._at_once = alone
        if alone and self.received:
            raise Stopped
        try:
            yield
        finally:
            self._at_once = False
