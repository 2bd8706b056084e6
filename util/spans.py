"""Names of what the host does, for whoever profiles it: "entropy", "transfer", "checksum", "io".

They are spans of `torch.profiler`, which shows them beside the operations of the networks; benchmarks/spans.py adds
them up.
"""
from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch.profiler import record_function

T = TypeVar("T")


def each(items: Iterable[T], name: str) -> Iterator[T]:
    """The items, with a span around the making of each."""
    items, end = iter(items), object()
    while True:
        with record_function(name):
            item = next(items, end)
        if item is end:
            return
        yield item
