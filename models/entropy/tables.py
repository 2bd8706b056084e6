"""Integer probability tables for the entropy coder, identical on every machine.

A table lists integer frequencies that sum to 2^24: first the escape, then the values first..last in order. Their
borders are scaled cumulative probabilities, rounded correctly: computed in float64, and in high precision wherever
float64 lies so near a tie that a last-bit difference between maths libraries could turn it. So encoder and decoder
build equal tables from equal weights, whatever their instruction sets.

Which tables there are, and which of them a symbol takes, is for its distribution to say (distributions.py): those
with a scale have a table per step of a logarithmic ladder.
"""
import math
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, NamedTuple

import constriction
import mpmath
import numpy as np
import torch
from torch import Tensor

from util.errors import InputError

if TYPE_CHECKING:
    from models.entropy.distributions import Coded

PRECISION = 24
"""Frequencies of a table sum to 2^PRECISION, the fixed-point precision of the coder."""
TOTAL = 1 << PRECISION

ESCAPE_SHIFT = 8
LEAST_ESCAPE, MOST_ESCAPE = TOTAL >> 13, TOTAL >> 8
"""Besides the tails that are cut off, an escape has 2^-ESCAPE_SHIFT of the frequency that the likeliest value of the
table leaves to the others, within these bounds. So it costs a likely symbol little (some 0.1 % of the entropy), and an
improbable one hardly more than the distribution says, or much less where the distribution is wrong."""

NO_SCALE = 255
"""What stands for a NaN among table indices."""

DIGITS = 60
"""Decimal digits where float64 is too near a tie."""

Categorical = constriction.stream.model.Categorical

Exact = Callable[[int], mpmath.mpf]


class Cumulative(NamedTuple):
    """A cumulative distribution at the borders between consecutive integers.

    Attributes:
        edges: the borders, float64 (n,): integers plus 1/2.
        values: the cumulative there, float64 (n,), each within `error`.
        exact: the same at an index of `edges`, to DIGITS digits.
        error: far more than what maths libraries differ by.
    """
    edges: np.ndarray
    values: np.ndarray
    exact: Exact
    error: float


@dataclass(frozen=True)
class TableSet:
    """Tables that one symbol after another chooses from, by a group index.

    Attributes:
        first: smallest value of each table, int64 (groups,).
        count: values in each table, int64 (groups,); the value v is the table symbol v - first + 1.
        frequencies: per table, int64 (count + 1,): escape, then the values. All at least 1, sum 2^PRECISION.
        models: the same as the coder's models.
    """
    first: np.ndarray
    count: np.ndarray
    frequencies: tuple[np.ndarray, ...]
    models: tuple[Categorical, ...] = field(repr=False)

    @classmethod
    def of(cls, distributions: Iterable[Cumulative]) -> "TableSet":
        """A table for each."""
        first, frequencies = zip(*map(_table, distributions))
        return cls(np.array(first, np.int64), np.array([len(f) - 1 for f in frequencies], np.int64), frequencies,
                   tuple(map(coder_model, frequencies)))

    def checksum(self) -> int:
        """CRC-32 of values and frequencies."""
        crc = zlib.crc32(self.first.astype("<i8").tobytes())
        for frequencies in self.frequencies:
            crc = zlib.crc32(frequencies.astype("<u4").tobytes(), crc)
        return crc

    def least_bits(self) -> np.ndarray:
        """The bits of the cheapest symbol of each table, float64 (groups,)."""
        return np.array([PRECISION - math.log2(f.max()) for f in self.frequencies])


def coder_model(frequencies: np.ndarray) -> Categorical:
    """The coder's model with exactly these frequencies, int64, all at least 1, sum 2^PRECISION."""
    # The coder adds one to each weight and scales the rest to fill 2^PRECISION: with these weights by exactly 1.
    return Categorical((frequencies - 1).astype(np.float64), perfect=False)


def _table(distribution: Cumulative) -> tuple[int, np.ndarray]:
    """First value and frequencies. A tail ends where at most half of what the escape has of its own lies beyond."""
    edges, values, exact, error = distribution
    borders = round_correctly(TOTAL * values, lambda n: TOTAL * exact(n), TOTAL * error)
    escape = min(max(TOTAL - int(np.diff(borders).max()) >> ESCAPE_SHIFT, LEAST_ESCAPE), MOST_ESCAPE)
    low = int(np.searchsorted(borders, escape // 2, side="right")) - 1
    low = min(max(low, 0), len(borders) - 2)                        # all the mass may lie outside
    high = min(max(int(np.searchsorted(borders, TOTAL - escape // 2)), low + 1), len(borders) - 1)
    spare = TOTAL - escape - (high - low)                           # a count for each value comes in addition
    start = exact(low)
    borders = round_correctly(spare * (values[low:high + 1] - values[low]), lambda n: spare * (exact(low + n) - start),
                              TOTAL * error)
    inside = np.diff(borders) + 1
    return math.ceil(edges[low]), np.concatenate(([TOTAL - inside.sum()], inside))


def round_correctly(approximate: np.ndarray, exact: Exact, tolerance: float) -> np.ndarray:
    """Round to the nearest integers as if `approximate` had no error.

    Args:
        approximate: float64 (n,), each within `tolerance` of the true value.
        exact: the true value at an index, to DIGITS digits; asked only near ties.
    """
    rounded = np.rint(approximate).astype(np.int64)
    doubtful = np.flatnonzero(np.abs(approximate - np.floor(approximate) - 0.5) <= tolerance)
    for n in doubtful.tolist():
        with mpmath.workdps(DIGITS):
            rounded[n] = int(mpmath.nint(exact(n)))
    return rounded


class Ladder:
    """Scales in equal ratios, and the step that a scale in any number format falls on.

    On a CPU the leading bits of the float32 nearest to a scale choose one of BINS. A bin is so narrow that at most one
    boundary lies in it, so that one comparison, with the scale itself, gives exactly what a search among all
    boundaries would. Other devices search: there it costs next to nothing.

    Attributes:
        scales: the steps, float64 (steps,).
        boundaries: halfway between them (logarithmically), float64 (steps - 1,).
    """
    BINS = 1 << 13
    """Sign, exponent and four bits of the mantissa: 16 bins per octave."""
    SHIFT = 32 - 13

    def __init__(self, least: Decimal, largest: Decimal, steps: int):
        assert steps <= NO_SCALE
        with localcontext() as context:                             # decimals round correctly: the same everywhere
            context.prec = DIGITS
            low, step = least.ln(), (largest / least).ln() / (2 * (steps - 1))
            ladder = np.array([float((low + n * step).exp()) for n in range(2 * steps - 1)])
        self.scales, self.boundaries = ladder[::2].copy(), ladder[1::2].copy()
        edges = np.nan_to_num((np.arange(self.BINS, dtype=np.uint32) << self.SHIFT).view(np.float32), posinf=np.inf)
        self._below = np.searchsorted(self.boundaries, edges).astype(np.uint8)
        after = np.append(self.boundaries, np.inf)[self._below]
        self._next = {kind: after.astype(kind) for kind in (np.float32, np.float64)}
        self._on_device: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def index(self, scale: Tensor) -> Tensor:
        """uint8 of scale's shape, on its device, without waiting for it: 0..steps - 1, or NO_SCALE for a NaN.

        Negative scales count as the smallest, infinity as the largest. Formats below float32 are widened first.
        """
        scale = scale.detach().to(torch.promote_types(scale.dtype, torch.float32)).contiguous()
        if scale.device.type == "cpu":
            return torch.from_numpy(self._look_up(scale.numpy()))
        key = scale.dtype, scale.device
        if key not in self._on_device:
            self._on_device[key] = torch.from_numpy(self.boundaries).to(scale.device, scale.dtype)
        index = torch.bucketize(scale, self._on_device[key], out_int32=True)
        return torch.where(scale.isnan(), NO_SCALE, index).to(torch.uint8)

    def _look_up(self, scale: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            bins = scale.astype(np.float32, copy=False).view(np.uint32) >> np.uint32(self.SHIFT)
        index = self._below.take(bins)
        index += (scale > self._next[scale.dtype.type].take(bins)).view(np.uint8)
        np.putmask(index, np.isnan(scale), NO_SCALE)
        return index


class Tables:
    """Everything a stream coder looks up: the tables of each latent, by name.

    Distributions with equal scales share theirs, so that they are built once.
    """

    def __init__(self, sets: Mapping[str, TableSet], identities: Mapping[str, Hashable]):
        self._sets, self._identities = dict(sets), dict(identities)
        self._known: dict[str, object] = {}

    @classmethod
    def of(cls, distributions: Mapping[str, "Coded"]) -> "Tables":
        """Of the distribution of each latent.

        Raises:
            InputError: a weight of a distribution is not finite.
        """
        return cls({name: distribution.tables() for name, distribution in distributions.items()},
                   {name: distribution.identity() for name, distribution in distributions.items()})

    def __getitem__(self, name: str) -> TableSet:
        return self._sets[name]

    def of_latent(self, name: str, distribution: "Coded") -> TableSet:
        """The tables of a latent, which must have been made from this distribution or an equal one.

        Raises:
            InputError: they were not.
        """
        if name not in self._sets:
            raise InputError(f"latent {name} has no probability tables (they were made for {', '.join(self._sets)}); "
                             "make them from the model that codes")
        if self._known.get(name) is not distribution:               # compared once, since it may wait for a device
            if distribution.identity() != self._identities[name]:
                raise InputError(f"latent {name} is to be coded with a {type(distribution).__name__} distribution that "
                                 "its probability tables were not made from; make them from the model that codes")
            self._known[name] = distribution
        return self._sets[name]

    def checksum(self) -> int:
        """CRC-32 over all tables, by name; equal on all machines for equal weights."""
        crc = 0
        for name in sorted(self._sets):
            crc = zlib.crc32(self._sets[name].checksum().to_bytes(4, "little"), zlib.crc32(name.encode(), crc))
        return crc
