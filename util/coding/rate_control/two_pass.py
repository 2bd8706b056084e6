"""A size, a rate or a quality of a whole video: its QPs are searched by coding it, before the stream is written.

GOPs are independent of each other, so a GOP is coded once at any QPs, and of a list of QPs that differs from others in
a few GOPs only these are coded. What is measured is what the stream will hold, to the byte.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, mode
from typing import Any, NamedTuple

from torch import Tensor

from models.codec import FrameHeader
from util.coding.bitstream import FRAME_QP, StreamHeader, pack_end
from util.coding.codec import Codec
from util.coding.frames import frames_of
from util.coding.gop import CodingPlan
from util.coding.rate_control.controller import Controller, Rates
from util.coding.rate_control.search import Found, Goal, Ladder, QPs, Search
from util.errors import InputError
from util.video import VideoFacts

Metric = Callable[[Tensor, Tensor], float]
"""Decoded and original frame, 1 3 H W in [0, 1] -> quality."""

Progress = Callable[[int, int, int], None]
"""Pass, frames coded in it so far, frames to code in it."""


@dataclass
class Scheduled(Controller):
    """The controller that was told the base QP of each frame.

    Attributes:
        left: bytes that the frames still to come may take; None for any number.
    """
    rates: Rates
    bases: QPs
    left: float | None = None

    @property
    def plan(self) -> CodingPlan:
        """That of most frames, whose QPs then need no words."""
        return self.rates.at(mode(self.bases))

    def header(self, number: int, size: tuple[int, int]) -> FrameHeader:
        return self.rates.header(number, size, self.bases[number])

    def spent(self, number: int, size: int) -> None:
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise InputError(f"at frame {number + 1} the stream is larger than in the analysis: this device does "
                                 "not repeat its results; try --device cpu")


class _Frame(NamedTuple):
    """As measured: bytes without those that tell its QP, where a stream has to; and its quality."""
    header: FrameHeader
    bare: int
    quality: float | None


@dataclass
class Analysis:
    """What every frame of a video takes at the QPs that are asked for.

    Args:
        codec: that will write the stream.
        source: frames as for `Codec.encode`; can be read again, and has a `length` or `len`.
        rates: that may be chosen.
        metric: of quality, where it is wanted.
        progress: is told of each coded frame.
        options: of `Codec.encode`: portable, align, facts.

    Attributes:
        length: number of frames.
        passes: how often frames were coded.

    Raises:
        InputError: the source can be read once only, or has no frame.
    """
    codec: Codec
    source: Any
    rates: Rates
    metric: Metric | None = None
    progress: Progress = lambda number, done, total: None
    options: dict[str, Any] = field(default_factory=dict)
    length: int = field(init=False)
    passes: int = field(init=False, default=0)

    def __post_init__(self):
        self.length = getattr(self.source, "length", None) or (len(self.source) if hasattr(self.source, "__len__")
                                                               else 0)
        if not self.length:
            raise InputError("a target of size, average rate or quality needs a video that can be read again, with at "
                             "least one frame; give a file, or --bitrate, which takes one pass")
        self._known: dict[tuple[int, QPs], list[_Frame]] = {}
        self._size: tuple[int, int] | None = None
        self._facts: VideoFacts | None = self.options.get("facts")

    @property
    def ladder(self) -> Ladder:
        """The QPs to choose from."""
        return Ladder([self.rates.group_of(number) for number in range(self.length)], self.rates.highest)

    def size(self, bases: QPs) -> int:
        """Bytes of the stream at the base QPs of all frames."""
        frames, header = self._frames(bases), self._stream_header(Scheduled(self.rates, bases).plan)
        told = sum(len(FRAME_QP.pack(frame.header.qp)) for frame in frames
                   if frame.header.qp != header.usual_qp(frame.header.intra))
        return len(header.pack()) + sum(frame.bare for frame in frames) + told + len(pack_end(self.length))

    def quality(self, bases: QPs) -> float:
        """Mean quality of the frames at these base QPs."""
        return fmean(frame.quality for frame in self._frames(bases))

    def search(self, goal: Goal, quality: bool = False, tell: Callable[[float], None] = lambda value: None) -> Found:
        """The base QPs that meet a goal of size, or of quality.

        Args:
            tell: is called with each value that was measured.
        """
        def measure(bases: QPs) -> float:
            value = self.quality(bases) if quality else self.size(bases)
            tell(value)
            return value
        return Search(measure, goal).run(self.ladder, self.rates.highest // 2)

    def scheduled(self, bases: QPs, most: float | None = None) -> Scheduled:
        """The controller for the stream.

        Args:
            most: bytes of the stream; encoding ends with an error where it gets larger, for whatever reason.
        """
        controller = Scheduled(self.rates, bases)
        if most is not None:
            around = len(self._stream_header(controller.plan).pack()) + len(pack_end(self.length))
            controller.left = most - around
        return controller

    def _frames(self, bases: QPs) -> list[_Frame]:
        gops = [(gop, bases[gop * self.rates.plan.gop:(gop + 1) * self.rates.plan.gop])
                for gop in range(-(-self.length // self.rates.plan.gop))]
        missing = {gop: own for gop, own in gops if (gop, own) not in self._known}
        if missing:
            self._code(missing)
        return [frame for entry in gops for frame in self._known[entry]]

    def _code(self, missing: dict[int, QPs]) -> None:
        """Code GOPs, in one reading."""
        self.passes += 1
        frames, facts = frames_of(self.source)
        self._facts = self._facts or facts
        session, done, coded = None, 0, {entry: [] for entry in missing.items()}
        total = sum(map(len, missing.values()))
        for number, (pixels, stamp) in enumerate(frames):
            gop, position = divmod(number, self.rates.plan.gop)
            if gop > max(missing):
                break
            if gop not in missing:
                continue
            if session is None:
                self._size = self._size or tuple(pixels.shape[-2:])
                header = self._stream_header(self.rates.plan)
                session = self.codec.session(header)
            part = session.encode(pixels, number,
                                  self.rates.header(number, header.aligned, missing[gop][position]), stamp)
            told = part.header.qp != header.usual_qp(part.header.intra)
            quality = None if self.metric is None else self.metric(
                part.frame, self.codec.arithmetic.frame(pixels).to(part.frame.dtype))
            coded[gop, missing[gop]].append(_Frame(
                part.header, len(part.data) - (len(FRAME_QP.pack(part.header.qp)) if told else 0), quality))
            done += 1
            self.progress(self.passes, done, total)
        self._known |= coded

    def _stream_header(self, plan: CodingPlan) -> StreamHeader:
        options = {**self.options, "facts": self._facts}
        return self.codec.stream_header(self._size, plan, **options)
