"""A plot of what rate control did: bytes, QP and the buffer over the frames of a stream (matplotlib, no display)."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from util.coding.rate_control.buffer import LeakyBucket
from util.files import atomic_path

WINDOW = 1.0
"""Seconds of the moving average."""


class Sent(NamedTuple):
    """A frame of a stream; `size` in bytes."""
    intra: bool
    qp: int
    size: int


def plot_rate(path: Path, title: str, frames: Sequence[Sent], fps: float, target: float | None = None,
              buffer: float | None = None) -> None:
    """Write a PNG.

    Args:
        frames: all of a stream, in order.
        fps: frames per second.
        target: bits per second.
        buffer: seconds; with a target, the fullness of such a buffer is shown.

    Raises:
        InputError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load
    from matplotlib.figure import Figure
    leaky = target is not None and buffer is not None
    figure = Figure(figsize=(8, 6.5 if leaky else 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    rate, qp, *others = figure.subplots(3 if leaky else 2, sharex=True)
    numbers = range(1, len(frames) + 1)
    kbits = [8 * frame.size * fps / 1000 for frame in frames]
    rate.bar(numbers, kbits, width=1, color=["tab:orange" if frame.intra else "tab:blue" for frame in frames],
             label="frame (I-frames orange)")
    rate.plot(numbers, _moving(kbits, round(WINDOW * fps)), color="black", label=f"mean of the last {WINDOW:g} s")
    if target is not None:
        rate.axhline(target / 1000, color="tab:red", linestyle="--", label="target")
    rate.set(title=title, ylabel="kbit/s")
    rate.legend(fontsize="small")
    qp.step(numbers, [frame.qp for frame in frames], where="mid")
    qp.set(ylabel="QP")
    if leaky:
        bucket = LeakyBucket(max(buffer * fps, 1) * target / 8 / fps, target / 8 / fps)
        others[0].plot(numbers, [100 * bucket(frame.size) for frame in frames])
        others[0].axhline(100, color="tab:red", linestyle="--")
        others[0].set(ylabel=f"% of the {buffer:g} s buffer", ylim=(0, None))
    (others or [qp])[-1].set(xlabel="frame")
    for axes in (rate, qp, *others):
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _moving(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and those before it, `window` of them where there are so many."""
    return [sum(part) / len(part) for part in (values[max(0, n - max(window, 1)):n] for n in range(1, len(values) + 1))]
