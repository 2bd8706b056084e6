"""Where the time of coding goes, for those who ask: spans by name, handed to whoever does the work.

    codec.span = stopwatch = Stopwatch(device)
    ...
    stopwatch.seconds        {"entropy": ..., "transfer": ..., "checksum": ..., "io": ...}

Whoever is not timed has `contextlib.nullcontext` instead, which also takes a name.
"""
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Stopwatch:
    """Adds up seconds by name; for work on one thread, whose spans do not lie within one another.

    A GPU is waited for at both ends of a span, so that each name gets what it costs; all of it together takes longer
    than it would untimed.

    Attributes:
        seconds: by name, so far.
    """

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = {}
        self._device = device

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def _now(self) -> float:
        synchronise(self._device)
        return time.perf_counter()


def synchronise(device: torch.device) -> None:
    """Wait for all work of a GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def each(items: Iterable[T], span: Callable[[str], AbstractContextManager], name: str) -> Iterator[T]:
    """The items, with a span around the making of each."""
    items, end = iter(items), object()
    while True:
        with span(name):
            item = next(items, end)
        if item is end:
            return
        yield item
