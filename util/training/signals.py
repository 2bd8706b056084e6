"""SIGTERM, SIGHUP and Ctrl-C: finish the step, save, leave."""
import signal
import threading


class Stopped(Exception):
    """The run was stopped by a signal, and everything is saved."""


class StopSignal:
    """Remembers, inside its `with` block, that the process was asked to stop. What is ignored (nohup) stays ignored.

    Attributes:
        received: number of the signal, or 0.
    """

    def __init__(self):
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle)
                            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
                            if signal.getsignal(number) != signal.SIG_IGN}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        self.received = number
