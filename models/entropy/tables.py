"""Integer probability tables for the entropy coder, identical on every machine.

A table lists integer frequencies that sum to 2^24: first the escape, then the values first..last in order. Their
borders are scaled cumulative probabilities, rounded correctly: computed in float64, and in high precision wherever
float64 lies so near a tie that a last-bit difference between maths libraries could turn it. So encoder and decoder
build equal tables from equal weights, whatever their instruction sets.

The y latents of all codecs share one set of zero-mean Gaussians, indexed by a scale that is quantised on a fixed
logarithmic ladder; each z has a set with a table per channel, from its `FactorizedPrior` (SPEC section 7).
"""
import copy
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import lru_cache

import constriction
import mpmath
import numpy as np
import torch
from torch import Tensor

from models.entropy.likelihood import FactorizedPrior
from util.errors import InputError

PRECISION = 24
"""Frequencies of a table sum to 2^PRECISION, the fixed-point precision of the coder."""

SCALES = 64
SCALE_MIN, SCALE_MAX = Decimal("0.11"), Decimal(256)
NO_SCALE = 255
"""What stands for a NaN among scale indices."""
GAUSSIAN_REACH = 6
"""Values up to this many standard deviations are in the table; the rest escapes."""

Z_REACH = 255
"""Values of z beyond +-Z_REACH always escape."""
Z_TAIL = 22
"""A channel's table ends where less than 2^-Z_TAIL of the probability is left (rounded to nearest)."""

DIGITS = 60
"""Decimal digits where float64 is too near a tie."""

Categorical = constriction.stream.model.Categorical

Exact = Callable[[int], mpmath.mpf]


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
    def from_borders(cls, first: list[int], borders: list[np.ndarray]) -> "TableSet":
        """Tables from the integer borders between values, which leave one count for each symbol to be added."""
        frequencies = []
        for border in borders:
            values = np.diff(border) + 1
            frequencies.append(np.concatenate(([(1 << PRECISION) - values.sum()], values)))
        # The coder adds one to each weight and scales the rest to fill 2^PRECISION: with these weights by exactly 1.
        models = tuple(Categorical((f - 1).astype(np.float64), perfect=False) for f in frequencies)
        return cls(np.array(first, np.int64), np.array([len(f) - 1 for f in frequencies], np.int64),
                   tuple(frequencies), models)

    def checksum(self) -> int:
        """CRC-32 of values and frequencies."""
        crc = zlib.crc32(self.first.astype("<i8").tobytes())
        for frequencies in self.frequencies:
            crc = zlib.crc32(frequencies.astype("<u4").tobytes(), crc)
        return crc

    def least_bits(self) -> np.ndarray:
        """The bits of the cheapest symbol of each table, float64 (groups,)."""
        return np.array([PRECISION - math.log2(f.max()) for f in self.frequencies])


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


# Gaussian tables

@lru_cache(maxsize=1)
def scale_ladder() -> tuple[np.ndarray, np.ndarray]:
    """The SCALES standard deviations and the SCALES - 1 boundaries halfway between them (logarithmically), float64.

    Decimal arithmetic rounds correctly, so the numbers are the same everywhere.
    """
    with localcontext() as context:
        context.prec = DIGITS
        low, step = SCALE_MIN.ln(), (SCALE_MAX / SCALE_MIN).ln() / (2 * (SCALES - 1))
        ladder = np.array([float((low + n * step).exp()) for n in range(2 * SCALES - 1)])
    return ladder[::2].copy(), ladder[1::2].copy()


@lru_cache(maxsize=1)
def gaussian_tables() -> TableSet:
    """One zero-mean Gaussian table per scale of the ladder."""
    first, borders = [], []
    for scale in scale_ladder()[0].tolist():
        last = math.ceil(GAUSSIAN_REACH * scale) + 1
        first.append(-last)
        borders.append(_gaussian_borders(scale, last))
    return TableSet.from_borders(first, borders)


def _gaussian_borders(scale: float, last: int) -> np.ndarray:
    """Scaled cumulative probability between the values -last..last, from 0."""
    edges = np.arange(-last, last + 2) - 0.5
    spare = (1 << PRECISION) - (2 * last + 2)
    cumulative = 0.5 * torch.erfc(torch.from_numpy(edges / (-scale * math.sqrt(2)))).numpy()

    def exact(n: int) -> mpmath.mpf:
        return spare * (mpmath.ncdf(edges[n] / mpmath.mpf(scale)) - mpmath.ncdf(edges[0] / mpmath.mpf(scale)))

    return round_correctly(spare * (cumulative - cumulative[0]), exact, 1e-6)


class ScaleIndex:
    """The step of the scale ladder that a scale in any number format falls on.

    On a CPU the leading bits of the float32 nearest to a scale choose one of BINS. A bin is so narrow that at most one
    boundary lies in it, so that one comparison, with the scale itself, gives exactly what a search among all
    boundaries would. Other devices search: there it costs next to nothing.
    """
    BINS = 1 << 13
    """Sign, exponent and four bits of the mantissa: 16 bins per octave, which has 5.6 steps."""
    SHIFT = 32 - 13

    def __init__(self):
        edges = np.nan_to_num((np.arange(self.BINS, dtype=np.uint32) << self.SHIFT).view(np.float32), posinf=np.inf)
        self._below = np.searchsorted(scale_ladder()[1], edges).astype(np.uint8)
        after = np.append(scale_ladder()[1], np.inf)[self._below]
        self._next = {kind: after.astype(kind) for kind in (np.float32, np.float64)}
        self._boundaries: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __call__(self, scale: Tensor) -> Tensor:
        """uint8 of scale's shape, on its device, without waiting for it: 0..SCALES - 1, or NO_SCALE for a NaN.

        Negative scales count as the smallest, infinity as the largest. Formats below float32 are widened first.
        """
        scale = scale.detach().to(torch.promote_types(scale.dtype, torch.float32)).contiguous()
        if scale.device.type == "cpu":
            return torch.from_numpy(self._look_up(scale.numpy()))
        key = scale.dtype, scale.device
        if key not in self._boundaries:
            self._boundaries[key] = torch.from_numpy(scale_ladder()[1]).to(scale.device, scale.dtype)
        index = torch.bucketize(scale, self._boundaries[key], out_int32=True)
        return torch.where(scale.isnan(), NO_SCALE, index).to(torch.uint8)

    def _look_up(self, scale: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            bins = scale.astype(np.float32, copy=False).view(np.uint32) >> np.uint32(self.SHIFT)
        index = self._below.take(bins)
        index += (scale > self._next[scale.dtype.type].take(bins)).view(np.uint8)
        np.putmask(index, np.isnan(scale), NO_SCALE)
        return index


# Tables of the factorised priors

def factorized_tables(prior: FactorizedPrior) -> TableSet:
    """One table per channel of a hyper latent.

    Raises:
        InputError: a parameter is not finite.
    """
    prior = copy.deepcopy(prior).to("cpu", torch.float64).requires_grad_(False)
    if not all(bool(p.isfinite().all()) for p in prior.parameters()):
        raise InputError("a probability model in the weights is not finite; use other weights")
    edges = np.arange(-Z_REACH, Z_REACH + 2) - 0.5
    x = torch.from_numpy(edges).view(1, 1, -1, 1).expand(1, prior.channels, -1, 1)
    cumulative = prior.cdf(x).squeeze(0).squeeze(-1).numpy()
    tables = [_channel_borders(edges, row, _ExactCumulative(prior, channel)) for channel, row in enumerate(cumulative)]
    return TableSet.from_borders([first for first, _ in tables], [borders for _, borders in tables])


def _channel_borders(edges: np.ndarray, cumulative: np.ndarray, exact: Callable[[float], mpmath.mpf]
                     ) -> tuple[int, np.ndarray]:
    """First value and scaled borders of one channel, its tails cut off."""
    coarse = round_correctly(cumulative * 2 ** Z_TAIL, lambda n: exact(edges[n]) * 2 ** Z_TAIL, 1e-4)
    inside = np.flatnonzero((coarse[1:] > 0) & (coarse[:-1] < 2 ** Z_TAIL))
    low, high = (inside[0], inside[-1]) if len(inside) else (Z_REACH, Z_REACH)       # all mass far outside
    edges, cumulative = edges[low:high + 2], cumulative[low:high + 2]
    spare = (1 << PRECISION) - (len(edges) + 1)
    start = exact(edges[0])
    borders = round_correctly(spare * (cumulative - cumulative[0]),
                              lambda n: spare * (exact(edges[n]) - start), 1e-4)
    return int(low) - Z_REACH, borders


class _ExactCumulative:
    """`FactorizedPrior.cdf` of one channel to DIGITS digits."""

    def __init__(self, prior: FactorizedPrior, channel: int):
        self.stages = [(float(f.h[0, channel]), float(f.b[0, channel]), None if f.a is None else float(f.a[0, channel]))
                       for f in (prior.f1, prior.f2, prior.f3, prior.f4)]

    def __call__(self, x: float) -> mpmath.mpf:
        with mpmath.workdps(DIGITS):
            t = mpmath.mpf(x)
            for h, b, a in self.stages:
                t = t * (mpmath.log1p(mpmath.exp(h)) if h <= 20 else h) + b          # PyTorch's softplus
                if a is not None:
                    t = t + mpmath.tanh(t) * mpmath.tanh(a)
            return 1 / (1 + mpmath.exp(-t))


# All tables of a codec

@dataclass(frozen=True)
class Tables:
    """Everything a stream coder looks up.

    Attributes:
        y: the Gaussian tables, one per step of the scale ladder.
        z: by name (iz, mz, rz), a table per channel.
        scale_index: from scales to groups of `y`.
    """
    y: TableSet
    z: dict[str, TableSet]
    scale_index: ScaleIndex = field(default_factory=ScaleIndex)

    @classmethod
    def of(cls, priors: dict[str, FactorizedPrior]) -> "Tables":
        return cls(gaussian_tables(), {name: factorized_tables(prior) for name, prior in priors.items()})

    def checksum(self) -> int:
        """CRC-32 over all tables, by name; equal on all machines for equal weights."""
        parts = [self.y.checksum(), *(self.z[name].checksum() for name in sorted(self.z))]
        return zlib.crc32(np.array(parts, "<u4").tobytes())
