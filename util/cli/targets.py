"""What `--compress --input` codes at: a constant QP, or what meets a bit rate, a size or a quality."""
import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dataloader.source import FrameSource
from util.cli.datasets import say
from util.cli.words import count
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.rate_control.controller import Controller, Rates
from util.coding.rate_control.one_pass import OnePass
from util.coding.rate_control.search import Goal
from util.coding.rate_control.two_pass import Analysis
from util.coding.session import EncodedPart
from util.errors import InputError
from util.evaluation.metrics import psnr
from util.rate_plot import Sent, plot_rate


@dataclass
class Controlled:
    """Attributes:
        controller: what to encode with.
        told: what to say in the end, given the bytes of the stream.
        target: bits per second, where there is one.
        buffer: in seconds, likewise.
        sent: the frames so far, where a plot is wanted.
    """
    controller: CodingPlan | Controller
    told: Callable[[int], str] = lambda size: ""
    target: float | None = None
    buffer: float | None = None
    sent: list[Sent] | None = None

    def see(self, part: EncodedPart) -> None:
        if self.sent is not None:
            self.sent.append(Sent(part.header.intra, part.header.qp, len(part.data)))

    def plot(self, source: FrameSource, output: Path) -> str:
        """Where it is wanted, rate, QP and buffer over the frames seen, beside the stream; what to say of it.

        Errors as of `plot_rate`.
        """
        if self.sent is None:
            return ""
        path = output.with_suffix(".rate.png")
        plot_rate(path, f"{source.name}, {source.width}x{source.height}", self.sent, float(source.rate or 25),
                  self.target, self.buffer)
        return f"; plot in {path}"


def control(arguments: argparse.Namespace, codec: Codec, source: FrameSource, plan: CodingPlan) -> Controlled:
    """What the flags ask for; targets of a whole file are searched here, by coding it.

    Raises:
        InputError: the target cannot be reached, or the video does not tell its frame rate or can be read once only.
    """
    if arguments.bitrate is not None:
        return one_pass(arguments, codec, source, plan, arguments.bitrate)
    for flag in ("target_psnr", "target_size", "target_bitrate"):
        if getattr(arguments, flag) is not None:
            return _search(arguments, codec, source, plan, flag, getattr(arguments, flag))
    return Controlled(plan, sent=_kept(arguments))


def one_pass(arguments: argparse.Namespace, codec: Codec, source: FrameSource, plan: CodingPlan, bitrate: float
             ) -> Controlled:
    """A bit rate, live. Errors as of `control`."""
    fps = _frame_rate(source, "--ladder" if arguments.ladder else "--bitrate")
    law = OnePass(Rates.of(codec.network("float32"), plan), bitrate, fps, arguments.buffer)

    def told(size: int) -> str:
        full = 100 * law.bucket.peak / law.bucket.size
        return (f"; {_kbits(law.average)} of {_kbits(bitrate)} ({100 * (law.average / bitrate - 1):+.2f} %), buffer of "
                f"{arguments.buffer:g} s at most {full:.0f} % full, {count(law.bucket.underflows, 'underflow')}")
    return Controlled(law, told, bitrate, arguments.buffer, _kept(arguments))


@dataclass(frozen=True)
class _Wanted:
    """A target of a whole file, as it is measured and told.

    Attributes:
        goal: what is searched for, in `value`s.
        value: of the target, in bytes or dB.
        words: what is measured -> how to say it.
    """
    flag: str
    goal: Goal
    value: float
    words: Callable[[float], str]

    @classmethod
    def of(cls, flag: str, value: float, source: FrameSource, frames: int) -> "_Wanted":
        if flag == "target_psnr":
            return cls(flag, Goal.quality(value), value, lambda dB: f"{dB:.3f} dB")
        if flag == "target_size":
            return cls(flag, Goal.size(value), value, lambda size: f"{size:,.0f} bytes")
        rate = 8 * _frame_rate(source, f"--{flag}") / frames        # bits per second of a byte
        return cls(flag, Goal.size(value / rate), value / rate, lambda size: _kbits(rate * size))


def _search(arguments: argparse.Namespace, codec: Codec, source: FrameSource, plan: CodingPlan, flag: str,
            value: float) -> Controlled:
    rates = Rates.of(codec.network("float32"), plan)
    quality = flag == "target_psnr"
    with tqdm(desc="pass 1", unit="frame", disable=None) as bar:
        def progress(number: int, done: int, total: int) -> None:
            if done == 1:
                bar.reset(total)
                bar.set_description(f"pass {number}")
            bar.update()
        options = {"portable": arguments.portable, "align": arguments.align_factor, "facts": source.facts}
        analysis = Analysis(codec, source, rates, psnr if quality else None, progress, options)
        wanted = _Wanted.of(flag, value, source, analysis.length)
        found = analysis.search(wanted.goal, quality, lambda value: bar.set_postfix_str(
            f"last {wanted.words(value)}, target {wanted.words(wanted.value)}"))
        measure = analysis.quality if quality else analysis.size
        if found.bases is None:
            ends = [wanted.words(measure((base,) * analysis.length)) for base in (0, rates.highest)]
            raise InputError(f"--{flag} {wanted.words(value if quality else wanted.value)} is "
                             f"{'above what the highest QP' if quality else 'below what QP 0'} makes of {source.name}; "
                             f"this model reaches {ends[0]} to {ends[1]} (QP 0 to {rates.highest})")
    got = measure(found.bases)
    if not found.met:
        say(f"--{flag} {wanted.words(wanted.value)}: the nearest that this model makes of {source.name} is "
            f"{wanted.words(got)}")

    def told(size: int) -> str:
        share = "" if quality else f" ({100 * (size / wanted.value - 1):+.2f} %)"
        return (f"; {wanted.words(got if quality else size)} of {wanted.words(wanted.value)}{share}, passes of "
                f"analysis: {analysis.passes}")
    controller = analysis.scheduled(found.bases, None if quality else wanted.value)
    return Controlled(controller, told, value if flag == "target_bitrate" else None, None, _kept(arguments))


def _kbits(rate: float) -> str:
    return f"{rate / 1000:.2f} kbit/s"


def _kept(arguments: argparse.Namespace) -> list[Sent] | None:
    return [] if arguments.visualize else None


def _frame_rate(source: FrameSource, flag: str) -> float:
    """Frames per second.

    Raises:
        InputError: nobody knows.
    """
    if not source.rate:
        raise InputError(f"{flag} needs the frame rate, which {source.name} does not tell; give --frame_rate, such as "
                         "--frame_rate 25")
    return float(source.rate)
