"""Find the QPs of a whole sequence that meet a target, asking an encoder as seldom as possible. Knows no codec.

    levels: base QP of all frames -> of some mini-GOPs one more -> of some frames one more
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

QPs = tuple[int, ...]
"""The base QP of each frame."""

SLOPE = 0.06
"""What ln(bytes) of usual codecs gains per QP, for a first step: 64 QPs span a factor of about 50."""


@dataclass(frozen=True)
class Goal:
    """Where to stop.

    Attributes:
        error: what was measured -> signed distance from the target, rising with the QP, in units of `tolerance`'s.
        tolerance: of the distance, on the allowed side.
        above: the allowed side is above the target (quality) instead of below it (size).
        slope: what `error` gains per QP, for a first step.
    """
    error: Callable[[float], float]
    tolerance: float
    above: bool = False
    slope: float = SLOPE

    @classmethod
    def size(cls, target: float, tolerance: float = 0.005) -> "Goal":
        """So many bytes, or down to a share of `tolerance` less."""
        return cls(lambda size: math.log(max(size, 1e-9) / target), -math.log(1 - tolerance))

    @classmethod
    def quality(cls, target: float, tolerance: float = 0.02) -> "Goal":
        """So many dB, or up to `tolerance` more."""
        return cls(lambda quality: quality - target, tolerance, above=True, slope=0.2)

    def allows(self, error: float) -> bool:
        return error >= 0 if self.above else error <= 0

    def met(self, error: float) -> bool:
        return self.allows(error) and abs(error) <= self.tolerance


class Ladder:
    """Levels from the lowest base QP to the highest, each raising one more frame by one.

    Frames of a mini-GOP rise one after the other, mini-GOPs in an order that spreads them evenly over the sequence and
    that each level goes on with (van der Corput's), so that neighbouring levels differ in few GOPs.

    Args:
        groups: the mini-GOP of each frame, in order.
        highest: base QP.
    """

    def __init__(self, groups: Sequence[object], highest: int):
        self.frames, self.highest = len(groups), highest
        members: dict[object, list[int]] = {}
        for number, group in enumerate(groups):
            members.setdefault(group, []).append(number)
        ordered = [frames for _, frames in sorted(enumerate(members.values()), key=lambda entry: _reversed(entry[0]))]
        self.order = [number for frames in ordered for number in frames]
        self.cuts = [0]
        for frames in ordered:
            self.cuts.append(self.cuts[-1] + len(frames))
        self.top = highest * self.frames

    def qps(self, level: int) -> QPs:
        """Of level 0..top."""
        base, raised = divmod(level, self.frames)
        qps = [base] * self.frames
        for number in self.order[:raised]:
            qps[number] += 1
        return tuple(qps)

    def between(self, low: int, high: int) -> list[list[int]]:
        """Levels from `low`, whole QPs apart from `high`, to it: at mini-GOPs, and at each frame."""
        return [[low + cut for cut in self.cuts if low + cut <= high], list(range(low, high + 1))]


def _reversed(index: int) -> float:
    """Van der Corput: the binary digits of a number, mirrored behind the point."""
    result, weight = 0.0, 0.5
    while index:
        index, digit = divmod(index, 2)
        result, weight = result + weight * digit, weight / 2
    return result


@dataclass
class Found:
    """The outcome of a search.

    Attributes:
        bases: base QP of each frame; None if not even an end of the ladder is on the allowed side.
        error: signed distance from the target.
        met: whether it is inside the tolerance.
        measured: how often the encoder was asked.
    """
    bases: QPs | None
    error: float
    met: bool
    measured: int


@dataclass
class Search:
    """Args:
        measure: base QPs -> what the goal is about. Need not be monotonic: whatever it does, the result is on the
            allowed side.
        goal: where to stop.
        patience: how often to measure at most, once whole QPs are settled.
    """
    measure: Callable[[QPs], float]
    goal: Goal
    patience: int = 12
    _errors: dict[QPs, float] = field(default_factory=dict, init=False)
    _begun: int = field(default=0, init=False)

    def run(self, ladder: Ladder, guess: int) -> Found:
        """Args:
            guess: the base QP to begin with.
        """
        low, high = self._bracket(ladder, list(range(0, ladder.top + 1, ladder.frames)), guess)
        best = high if self.goal.above else low
        if low is not None and high is not None:
            self._begun = len(self._errors)
            for levels in ladder.between(low, high):
                if self._done(ladder, best):
                    break
                levels = [level for level in levels if low <= level <= high]
                low, high = self._narrow(ladder, levels, 0, len(levels) - 1)
                best = high if self.goal.above else low
        if best is None:
            return Found(None, math.nan, False, len(self._errors))
        qps = ladder.qps(best)
        if low is not None and high is not None and not self.goal.met(self._error(qps)):
            qps = self._single_frames(qps, ladder, high if not self.goal.above else low)
        error = self._error(qps)
        return Found(qps, error, self.goal.met(error), len(self._errors))

    def _error(self, qps: QPs) -> float:
        if qps not in self._errors:
            self._errors[qps] = self.goal.error(self.measure(qps))
        return self._errors[qps]

    def _under(self, error: float) -> bool:
        """Whether higher QPs are worth a look."""
        return error < 0 if self.goal.above else error <= 0

    def _done(self, ladder: Ladder, level: int | None) -> bool:
        return level is not None and self.goal.met(self._error(ladder.qps(level)))

    def _bracket(self, ladder: Ladder, levels: list[int], guess: int) -> tuple[int | None, int | None]:
        """Neighbouring levels of whole QPs on either side of the target; None beyond an end."""
        low, high, index, slope = -1, len(levels), min(max(guess, 0), len(levels) - 1), self.goal.slope
        seen: list[tuple[int, float]] = []
        while high - low > 1:
            error = self._error(ladder.qps(levels[index]))
            seen.append((index, error))
            low, high = (index, high) if self._under(error) else (low, index)
            if self.goal.met(error):
                break
            if len(seen) > 1 and seen[-1][0] != seen[-2][0]:
                new = (seen[-1][1] - seen[-2][1]) / (seen[-1][0] - seen[-2][0])
                slope = min(max(new, slope / 4), slope * 4)
            step = -error / slope
            inside = math.floor(index + step) if error > 0 else math.ceil(index + step)
            index = min(max(inside, low + 1), high - 1)
            if len(seen) > 4:                                       # secants that crawl
                index = (low + high) // 2 if high - low > 1 else index
        if seen and self.goal.met(seen[-1][1]):
            return (levels[seen[-1][0]],) * 2
        return (levels[low] if low >= 0 else None), (levels[high] if high < len(levels) else None)

    def _narrow(self, ladder: Ladder, levels: list[int], low: int, high: int) -> tuple[int, int]:
        """Neighbours among levels whose ends are on either side of the target."""
        bisect = False
        while high - low > 1 and len(self._errors) - self._begun < self.patience:
            below, above = (self._error(ladder.qps(levels[i])) for i in (low, high))
            aim = 0.5 * self.goal.tolerance * (1 if self.goal.above else -1)
            share = 0.5 if bisect or above <= below else (aim - below) / (above - below)
            index = min(max(round(low + share * (high - low)), low + 1), high - 1)
            error = self._error(ladder.qps(levels[index]))
            before = high - low
            low, high = (index, high) if self._under(error) else (low, index)
            bisect = 2 * (high - low) > before
            if self.goal.met(error):
                return (levels[index],) * 2
        return levels[low], levels[high]

    def _single_frames(self, qps: QPs, ladder: Ladder, beyond: int) -> QPs:
        """One frame's step jumps over the tolerance: leave that frame, and step others while the target allows."""
        step = -1 if self.goal.above else 1
        skip = {number for number, (a, b) in enumerate(zip(qps, ladder.qps(beyond), strict=True)) if a != b}
        for number in sorted(set(range(len(qps))) - skip, reverse=True):
            if self.goal.met(self._error(qps)) or len(self._errors) - self._begun >= 2 * self.patience:
                break
            changed = qps[number] + step
            if not 0 <= changed <= ladder.highest:
                continue
            tried = (*qps[:number], changed, *qps[number + 1:])
            error = self._error(tried)
            if self.goal.allows(error) and abs(error) < abs(self._error(qps)):
                qps = tried
        return qps
