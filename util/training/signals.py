"""SIGTERM and Ctrl-C: finish the step, save, leave."""
import signal
import threading


class Stopped(Exception):
    """The run was stopped by a signal, and everything is saved."""


class StopSignal:
    """Remembers, inside its `with` block, that the process was asked to stop."""

    def __init__(self):
        self.received = False
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
