"""Where the time of coding goes: seconds of the spans that the program names for `torch.profiler`.

    with spans(device) as seconds:
        ...
    seconds        {"entropy": ..., "transfer": ..., "checksum": ..., "io": ...}
"""
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

SPANS = ("entropy", "transfer", "checksum", "io")
"""Names that the program gives to work of the host (`torch.profiler.record_function`); the rest is the networks'."""
WAITING = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cudaMemcpyAsync")
"""What may wait for a GPU, as the profiler names it: a copy to memory that is not pinned does."""


@contextmanager
def spans(device: torch.device) -> Iterator[dict[str, float]]:
    """Yields what holds the seconds of each span after the block. Spans do not lie within one another.

    What the host waits for a GPU is not in them: it is the networks that compute then. So nothing of a frame should
    overlap with the next one.
    """
    seconds: dict[str, float] = {}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        yield seconds
    with TemporaryDirectory() as folder:                            # the trace is read in no time, unlike `events()`
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    seconds.update(add_up((event["name"], event["ts"], event["ts"] + event["dur"]) for event in events
                          if event.get("cat") in ("user_annotation", "cuda_runtime")))


def add_up(events: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds by name of span, less what is waited for in it.

    Args:
        events: name, begin and end in microseconds, of one thread.
    """
    seconds, inside = dict.fromkeys(SPANS, 0.0), None
    for name, start, end in sorted(events, key=lambda event: event[1]):
        if name in SPANS:
            inside = (name, end)
            seconds[name] += (end - start) / 1e6
        elif name in WAITING and inside is not None and end <= inside[1]:
            seconds[inside[0]] -= (end - start) / 1e6
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait for all work of a GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
