"""A bit rate in one pass, for pipes and input without an end.

Once per mini-GOP, in ln(rate), where a QP's step is nearly the same everywhere; `right` is the base QP aimed at:

    right = ( ln(budget) - debt / horizon  -  complexity ) / slope
                           I                  P

P   `complexity`: ln(bytes) of the last mini-GOP's frames, brought to QP 0; the slope is learnt at the beginning;
I   `debt`: what all frames so far took beyond their budgets, a virtual buffer, given back within `horizon` frames.

The aim goes a share GAIN of the way, and MOST_STEPS at most; the base is the aim, rounded; what rounding left stays in
the aim. Only where a mini-GOP took SURPRISE more or less than was foreseen, as at a scene cut, the aim goes all of that
way: with a codec whose rate falls by 2 % a QP, three steps at a time would take seconds (docs/rate_control.md has the
figures of both). Where the buffer would run over, the base is as far below the aim as it takes. And where a mini-GOP
has all but filled it, since nobody foresaw what it takes, it is coded again, lower: none of its frames has gone out.

I-frames have a budget of their own: what they are expected to take at the QP of the GOP's begin. P-frames share the
rest of the GOP, so an expensive I-frame changes no QP unless it was more expensive than foreseen.
"""
import copy
import math
import statistics
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from models.codec import FrameHeader
from util.coding.gop import CodingPlan
from util.coding.rate_control.buffer import LeakyBucket
from util.coding.rate_control.controller import Controller, Rates, Trial
from util.coding.rate_control.search import SLOPE
from util.errors import InputError

MOST_STEPS = 3
"""A change of the base QP at most, unless the contents changed or the buffer would run over."""

SURPRISE = 0.35
"""The contents changed: |ln| of what a mini-GOP took over what was foreseen."""

GAIN = 0.8
"""Share of the way to the right QP that one change goes: frames of a new QP have a reference of the old one."""

HORIZON = 2.0
"""Buffers' times over which what was taken too much is given back, if that is two mini-GOPs at least."""

MOST_CORRECTION = 0.4
"""The debt moves the budget by so much at most, in ln."""

CREDIT = 0.4
"""Share of the buffer that frames which the highest QP cannot fill may leave to those after them (anti-windup)."""

SAFE = 0.8
"""How full the buffer may be foreseen to get."""

FULL = 0.95
"""How full it may get; a mini-GOP that filled it further is coded again."""

APART, TRIALS = 8, 4
"""The first mini-GOP is tried at base QPs so far apart at least, to learn the slope, and so often at most."""

SLOPES = (0.005, 0.3)
"""Bounds of what ln(bytes) gains per QP, when it is learnt."""


@dataclass
class Kind:
    """What frames of one kind take: complexity * exp(slope * base QP) bytes; 0 while nothing is known."""
    complexity: float = 0.0
    slope: float = SLOPE

    def learn(self, frames: list[tuple[int, int]]) -> None:
        """Base QP and bytes of the latest frames of this kind; what was known before is forgotten."""
        if frames:
            self.complexity = statistics.fmean(max(size, 1) * math.exp(-self.slope * base) for base, size in frames)

    def expected(self, base: float) -> float:
        """Bytes of a frame."""
        return self.complexity * math.exp(self.slope * base)


@dataclass
class _Asked:
    """A frame whose header is decided and whose bytes are not known yet."""
    intra: bool
    base: int
    budget: float
    expected: float


@dataclass
class OnePass(Controller):
    """The controller. The base QP changes at mini-GOPs' first frames only.

    Args:
        rates: of the codec.
        bitrate: bits per second, on average.
        fps: frames per second.
        buffer: of the decoder, in seconds.
        surprise: what says that the contents changed; infinite for MOST_STEPS always, unless the buffer would run over.

    Attributes:
        bucket: the simulated buffer.
        frames, bytes: that were coded so far.
        repeated: mini-GOPs that were coded again, each time.

    Raises:
        InputError: the buffer is shorter than a frame. From `start`: the bit rate is below what QP 0 makes.
    """
    rates: Rates
    bitrate: float
    fps: float
    buffer: float = 1.0
    surprise: float = SURPRISE
    plan: CodingPlan = field(init=False)
    bucket: LeakyBucket = field(init=False)
    frames: int = field(init=False)
    bytes: int = field(init=False)
    repeated: int = field(init=False)

    def __post_init__(self):
        if self.buffer * self.fps < 1 - 1e-9:
            raise InputError(f"--buffer of {self.buffer:.4g} s is shorter than a frame; give at least "
                             f"{1 / self.fps:.4g} s, a frame at {self.fps:.4g} frames per second")
        self.frames = self.bytes = self.repeated = 0
        self.budget = self.bitrate / 8 / self.fps                   # bytes per frame
        self.bucket = LeakyBucket(max(self.buffer * self.fps, 1) * self.budget, self.budget)
        self.plan = self.rates.plan
        self.lookahead = min(self.plan.rate_gop_size, self.plan.gop) + (self.plan.gop > self.plan.rate_gop_size)
        self._others = self.plan.gop - 1                            # P-frames of a GOP
        self._horizon = max(HORIZON * self.buffer * self.fps, 2 * self.plan.rate_gop_size)
        self._intra, self._inter = Kind(), Kind()
        self._base, self._debt = self.rates.highest // 2, 0.0
        self._aim, self._most = float(self._base), self.rates.highest
        self._intra_budget = self._inter_budget = self.budget
        self._asked: deque[_Asked] = deque()
        self._done: list[tuple[_Asked, int]] = []                   # since the last change, with bytes
        self._group: tuple[int, int] | None = None
        self._before: dict[str, Any] = {}                           # all of this as it was before the mini-GOP
        self._fullest = 0.0                                         # what waited at most since then

    @property
    def average(self) -> float:
        """Bits per second so far."""
        return 8 * self.bytes / max(self.frames, 1) * self.fps

    # The beginning

    def start(self, trial: Trial) -> None:
        """Try the first mini-GOP at a few QPs: to know what QPs do, and because the law alone would need many steps."""
        tried: dict[int, tuple[float, float]] = {}
        base = self._base
        while len(tried) < TRIALS and base not in tried:
            self._try(trial, base, tried)
            base = round(self._solve(self.budget))
            if len(tried) == 1 and abs(base - self._base) < APART:
                base = self._base + (APART if base >= self._base else -APART)
            base = min(max(base, 0), self.rates.highest)
        if base == 0 and self._per_frame(0) > self.budget:
            self._refuse(trial, tried)
        self.plan, self._base, self._aim = self.rates.at(base), base, float(base)

    def _try(self, trial: Trial, base: int, tried: dict[int, tuple[float, float]]) -> None:
        """Code the first frames at a base QP, and learn from all that was tried."""
        sizes: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for number, size in enumerate(trial(self.rates.at(base))):
            sizes[self.plan.header(number, (0, 0)).intra].append((base, size))
        tried[base] = tuple(statistics.fmean(size for _, size in sizes[intra]) if sizes[intra] else 0.0
                            for intra in (True, False))
        slope = _slope_of({base: sum(means) for base, means in tried.items()}, self._inter.slope)
        for intra, kind in ((True, self._intra), (False, self._inter)):
            kind.slope = slope
            kind.learn(sizes[intra])

    def _refuse(self, trial: Trial, tried: dict[int, tuple[float, float]]) -> None:
        ends = []
        for base in (0, self.rates.highest):
            if base not in tried:
                self._try(trial, base, tried)
            intra, inter = tried[base]
            ends.append((intra + self._others * (inter or intra)) / (1 + self._others) * 8 * self.fps / 1000)
        raise InputError(f"--bitrate {self.bitrate / 1000:.4g}k is below what QP 0 makes of the first frames; this "
                         f"model reaches {ends[0]:.4g}k to {ends[1]:.4g}k there (QP 0 to {self.rates.highest})")

    def _solve(self, budget: float) -> float:
        """The base at which a GOP takes so many bytes per frame, by what is known of its frames."""
        low, high = 0.0, float(self.rates.highest)
        while high - low > 0.01:
            middle = (low + high) / 2
            low, high = (middle, high) if self._per_frame(middle) < budget else (low, middle)
        return low if high < self.rates.highest else high

    def _per_frame(self, base: float) -> float:
        """Bytes per frame of a GOP."""
        intra = self._intra.expected(base)
        return (intra + self._others * (self._inter.expected(base) or intra)) / (1 + self._others)

    # Each frame

    def header(self, number: int, size: tuple[int, int]) -> FrameHeader:
        group, starts_gop = self.rates.group_of(number), self.plan.starts_gop(number)
        if group != self._group:
            self._before, self._fullest = {}, 0.0
            self._before = copy.deepcopy(vars(self))
            if self._group is not None:
                self._change(starts_gop)
            self._base = min(self._base, self._most)
            if starts_gop:
                self._share_out()
            self._group = group
        intra = self.plan.header(number, size).intra
        base = self._intra_base() if intra else self._base
        self._asked.append(_Asked(intra, base, self._intra_budget if starts_gop else self._inter_budget,
                                  (self._intra if intra else self._inter).expected(base)))
        return self.rates.header(number, size, base)

    def spent(self, number: int, size: int) -> None:
        frame = self._asked.popleft()
        self.frames, self.bytes = self.frames + 1, self.bytes + size
        self._done.append((frame, size))
        self._owe(size - frame.budget, frame.base)
        self.bucket(size)
        self._fullest = max(self._fullest, self.bucket.waiting)

    def together(self, number: int) -> int:
        return self.rates.left_in_group(number)

    def again(self) -> bool:
        """Where the mini-GOP has all but filled the buffer and there are lower QPs. Nothing else is learnt from it."""
        if self._fullest <= FULL * self.bucket.size or self._base == 0:
            self._most = self.rates.highest
            return False
        most, repeated = self._fitting(), self.repeated + 1
        vars(self).update(self._before)
        self._most, self.repeated = most, repeated
        return True

    def _fitting(self) -> int:
        """The base at which what the mini-GOP took would have left the buffer SAFE; some steps lower in any case."""
        base = max(self._base - MOST_STEPS, 0)
        while base > 0 and self._fullest_at(base) > SAFE * self.bucket.size:
            base -= 1
        return base

    def _fullest_at(self, base: int) -> float:
        """What would have waited at most, had no frame of the mini-GOP a base above this."""
        bucket = replace(self._before["bucket"], peak=0.0)
        for frame, size in self._done:
            bucket(size * math.exp(self._inter.slope * (min(base, frame.base) - frame.base)))
        return bucket.peak

    def _owe(self, excess: float, base: int) -> None:
        """Add bytes to the debt. It never is more than the buffer holds, nor is credit hoarded that no QP could use."""
        least = -self.bucket.size
        if base == self.rates.highest and excess < 0:
            least = min(self._debt, -CREDIT * self.bucket.size)
        self._debt = min(max(self._debt + excess, least), self.bucket.size)

    # Each mini-GOP

    def _change(self, starts_gop: bool) -> None:
        """A new base for the mini-GOP that begins."""
        surprised = self._learn()
        correction = self._debt / (self._horizon * self.budget)
        correction = math.exp(-min(max(correction, -MOST_CORRECTION), MOST_CORRECTION))
        if starts_gop or not self._inter.complexity:
            right = self._solve(self.budget * correction)
        else:
            wanted = self._inter_budget * correction
            right = math.log(wanted / self._inter.complexity) / self._inter.slope
        step = GAIN * (right - _rounded(self._aim))
        if not surprised:
            step = min(max(step, -MOST_STEPS), MOST_STEPS)
        self._aim = min(max(self._aim + step, 0), self.rates.highest)
        base = _rounded(self._aim)
        while base > 0 and self._foreseen(base, starts_gop) > SAFE * self.bucket.size:
            base -= 1
        self._base = base

    def _learn(self) -> bool:
        """From all frames since the last change. Whether the contents changed."""
        done, self._done = self._done, []
        took, expected = sum(size for _, size in done), sum(frame.expected for frame, _ in done)
        for intra, kind in ((True, self._intra), (False, self._inter)):
            kind.learn([(frame.base, size) for frame, size in done if frame.intra == intra])
        return expected > 0 and abs(math.log(max(took, 1) / expected)) > self.surprise

    def _share_out(self) -> None:
        """The budgets of a GOP that begins: the I-frame's at this base, and the rest."""
        total = self.budget * (1 + self._others)
        if self._others and self._intra.complexity:
            self._intra_budget = min(self._intra.expected(self._intra_base()), 0.9 * total)
            self._inter_budget = (total - self._intra_budget) / self._others

    def _foreseen(self, base: int, starts_gop: bool) -> float:
        """Bytes that would wait after the mini-GOP that begins."""
        length, intra = min(self.plan.rate_gop_size, self.plan.gop), self._intra.expected(base)
        inter = self._inter.expected(base) or intra
        took = length * inter + (intra - inter if starts_gop else 0)
        return self.bucket.waiting + took - length * self.bucket.drain

    def _intra_base(self) -> int:
        """The base, or what lets the I-frame into the buffer."""
        base = self._base
        while base > 0 and self._intra.expected(base) > SAFE * self.bucket.room:
            base -= 1
        return base


def _rounded(aim: float) -> int:
    """Halves go up, always: who steps by whole numbers takes as large a step."""
    return math.floor(aim + 0.5)


def _slope_of(sizes: dict[int, float], known: float) -> float:
    """What ln(bytes) gains per QP between those tried last and farthest from it."""
    last, b = list(sizes.items())[-1]
    first, a = max(sizes.items(), key=lambda entry: abs(entry[0] - last))
    if abs(last - first) < APART or min(a, b) <= 0:
        return known
    return min(max(math.log(b / a) / (last - first), SLOPES[0]), SLOPES[1])
