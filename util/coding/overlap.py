"""Work of the host that runs beside whatever makes the next piece of it: the networks on a GPU, as a rule."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(tasks: Iterable[Callable[[], T]], behind: int) -> Iterator[T]:
    """What each task returns, in order.

    A task runs on a thread of its own while the next ones are taken from `tasks`, which happens on the caller's
    thread. Results and errors, whether of a task or of `tasks`, come where they would without the thread: after all
    results before them. When the caller stops, no task is left running.

    Args:
        tasks: are taken when there is room for them.
        behind: how many tasks may wait or run while another one is being made; 0 runs each at once, without a thread.
    """
    if behind == 0:
        yield from (task() for task in tasks)
        return
    tasks, waiting, failure = iter(tasks), deque(), None
    with ThreadPoolExecutor(1, "host work") as worker:
        try:
            while failure is None:
                try:
                    waiting.append(worker.submit(next(tasks)))
                except StopIteration:
                    break
                except Exception as error:                          # has to wait for what was before it
                    failure = error
                if len(waiting) > behind:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            if failure is not None:
                raise failure
        finally:
            _cancel(waiting)


def _cancel(futures: Iterable[Future]) -> None:
    for future in futures:
        future.cancel()
