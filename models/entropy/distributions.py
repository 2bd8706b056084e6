"""Probability distributions of quantised latents. Each owns all of its arithmetic.

    bits(values, scale)     of integer symbols, elementwise: what an evaluation counts
    rate(values, scale)     of noisy values, elementwise and with a gradient: what training minimises
    noise                   half width of the uniform noise of the rate
    tables(), index(scale)  integer tables for streams, and which of them a scale chooses

A value costs -log2 of the probability of the unit interval around it; what an improbable one costs is up to a tail:
`Bounded` or `Added`. `Factorized` has a table per channel instead of a scale: `bits(values)`, `rate(values)`.
"""
import copy
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import ClassVar, Protocol

import mpmath
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.entropy.tables import DIGITS, Cumulative, Ladder, TableSet
from models.layers.bound import LowerBound, bounded
from util.errors import InputError

NORMAL_LADDER = Decimal("0.11"), Decimal(256), 64
LAPLACE_LADDER = Decimal("0.05"), Decimal(256), 64
"""Least and largest scale that has a table, and how many there are."""

Z_REACH = 255
"""Values of a factorised distribution beyond +-Z_REACH have no place in a table."""


class Coded(Protocol):
    """What streams need of a distribution."""

    def tables(self) -> TableSet:
        """Integer tables, the same on every machine."""

    def identity(self) -> Hashable:
        """Equal for distributions with equal tables and kinds; comparing it may wait for the device."""


class Conditional(Coded, Protocol):
    """A distribution around 0 whose scale comes with each value. Tensors have one shape, in and out."""
    noise: float

    def bits(self, values: Tensor, scale: Tensor) -> Tensor: ...

    def rate(self, values: Tensor, scale: Tensor) -> Tensor: ...

    def index(self, scale: Tensor) -> Tensor:
        """The table of each scale, uint8; `NO_SCALE` for a NaN."""


# Tails

def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound) whose gradient still raises x where it is below."""
    return bounded(x, x.new_full((1,), bound))


@dataclass(frozen=True)
class Bounded:
    """A probability counts as `bound` at least (HyTIP).

    In training `lower_bound` alone bounds it; a clamp after it would cut off the gradient that raises a
    probability below the bound.
    """
    bound: float = 1e-9

    def bits(self, probability: Tensor) -> Tensor:
        return -probability.clamp_min(self.bound).log2()

    def rate(self, probability: Tensor) -> Tensor:
        return -lower_bound(probability, self.bound).log2()


@dataclass(frozen=True)
class Added:
    """A constant is added to each probability, and bits are 0 at least (DCVC-HEM)."""
    constant: float = 1e-5

    def bits(self, probability: Tensor) -> Tensor:
        return (-(probability + self.constant).log2()).clamp_min(0)

    def rate(self, probability: Tensor) -> Tensor:
        return lower_bound(-(probability + self.constant).log2(), 0)


Tail = Bounded | Added


# Tables

@lru_cache(maxsize=8)
def _ladder(limits: tuple[Decimal, Decimal, int]) -> Ladder:
    return Ladder(*limits)


@lru_cache(maxsize=8)
def _tables(limits: tuple[Decimal, Decimal, int], cumulative: Callable[[float], Cumulative]) -> TableSet:
    return TableSet.of(map(cumulative, _ladder(limits).scales.tolist()))


def _normal_cumulative(scale: float) -> Cumulative:
    edges = _edges(math.ceil(5 * scale) + 1)                        # less than 2^-20 lies beyond
    values = 0.5 * torch.erfc(torch.from_numpy(edges / (-scale * math.sqrt(2)))).numpy()
    return Cumulative(edges, values, lambda n: mpmath.ncdf(edges[n] / mpmath.mpf(scale)), 1e-14)


def _laplace_cumulative(scale: float) -> Cumulative:
    edges = _edges(math.ceil(14 * scale) + 1)                       # less than 2^-20 lies beyond
    half = 0.5 * torch.exp(torch.from_numpy(-np.abs(edges) / scale)).numpy()

    def exact(n: int) -> mpmath.mpf:
        tail = mpmath.exp(-abs(edges[n]) / mpmath.mpf(scale)) / 2
        return tail if edges[n] < 0 else 1 - tail
    return Cumulative(edges, np.where(edges < 0, half, 1 - half), exact, 1e-14)


def _edges(last: int) -> np.ndarray:
    """The borders of the values -last..last."""
    return np.arange(-last, last + 2) - 0.5


# Distributions with a scale

class OnLadder:
    """What distributions with a scale have in common: a `probability` of unit intervals, a tail, a ladder of tables."""
    tail: Tail
    ladder: ClassVar[tuple[Decimal, Decimal, int]]
    cumulative: ClassVar[Callable[[float], Cumulative]]
    """The table of a scale."""

    def probability(self, values: Tensor, scale: Tensor) -> Tensor:
        """P(values - 1/2 < Y < values + 1/2)."""
        raise NotImplementedError

    def bits(self, values: Tensor, scale: Tensor) -> Tensor:
        return self.tail.bits(self.probability(values, scale))

    def rate(self, values: Tensor, scale: Tensor) -> Tensor:
        return self.tail.rate(self.probability(values, scale))

    def tables(self) -> TableSet:
        return _tables(self.ladder, type(self).cumulative)

    def index(self, scale: Tensor) -> Tensor:
        return _ladder(self.ladder).index(scale)

    def identity(self) -> Hashable:
        return self


class Gaussian(OnLadder, nn.Module):
    """Zero-mean Gaussian of the motion and inter latents of HyTIP: scale at least 0.11, likelihood at least 1e-9.

    The conditional model of Balle et al. (ICLR 2018), with the complementary error function, whose tails are exact.
    The released checkpoints also hold bounds and the (empty) tables of a coder; these buffers keep their names.
    """
    noise = 0.5
    ladder, cumulative = NORMAL_LADDER, staticmethod(_normal_cumulative)

    def __init__(self):
        super().__init__()
        for name, dtype in (("_offset", torch.int32), ("_quantized_cdf", torch.int32), ("_cdf_length", torch.int32),
                            ("scale_table", torch.float32)):
            self.register_buffer(name, torch.empty(0, dtype=dtype))
        self.register_buffer("scale_bound", torch.tensor([0.11]))
        self.likelihood_lower_bound = LowerBound(1e-9)
        self.lower_bound_scale = LowerBound(0.11)
        self.tail: Tail = Bounded()

    def probability(self, values: Tensor, scale: Tensor) -> Tensor:
        scale, values = self.lower_bound_scale(scale), values.abs()
        return self._cdf((0.5 - values) / scale) - self._cdf((-0.5 - values) / scale)

    @staticmethod
    def _cdf(x: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-math.sqrt(0.5) * x)

    def identity(self) -> Hashable:
        return Gaussian, self.tail


@dataclass(frozen=True)
class Normal(OnLadder):
    """Zero-mean Gaussian whose cumulative is written with erf, the scale clamped to [least_scale, 1e10].

    In float32 its tails are coarser than those of `Gaussian`, and estimated bits show it (intra latents of DCVC-HEM
    and DCVC-DC).
    """
    least_scale: float = 0.11
    tail: Tail = field(default_factory=Added)
    noise: ClassVar[float] = 0.5
    ladder, cumulative = NORMAL_LADDER, staticmethod(_normal_cumulative)

    def probability(self, values: Tensor, scale: Tensor) -> Tensor:
        precision = scale.clamp(self.least_scale, 1e10).reciprocal()
        return self._cdf((values + 0.5) * precision) - self._cdf((values - 0.5) * precision)

    @staticmethod
    def _cdf(x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@dataclass(frozen=True)
class SmoothNormal(Normal):
    """The `Normal` of DCVC-DC's intra latent, with a scale that can be learnt.

    `Normal` is flat where its erf saturates and below its clamp, so that a network could not leave these places. In
    training it is the same probability written with erfc, the scale bounded with a gradient: they differ by less than
    1e-5 where the scale is above that bound and the symbol is likely.
    """
    least_scale: float = 1e-5
    tail: Tail = field(default_factory=Bounded)
    trained_scale: ClassVar[float] = 0.11
    """Bound of the scale in training, that of the other latents."""

    def smooth_probability(self, values: Tensor, scale: Tensor) -> Tensor:
        """`probability`, for training."""
        precision = math.sqrt(0.5) / lower_bound(scale, self.trained_scale)
        values = values.abs()
        return 0.5 * (torch.erfc((values - 0.5) * precision) - torch.erfc((values + 0.5) * precision))

    def rate(self, values: Tensor, scale: Tensor) -> Tensor:
        return self.tail.rate(self.smooth_probability(values, scale))


@dataclass(frozen=True)
class Laplace(OnLadder):
    """Laplace distribution around 0 of the motion and inter latents of DCVC-HEM.

    The scale is b of exp(-|v| / b) / (2 b), clamped to [least_scale, 1e10].
    """
    least_scale: float = 1e-5
    tail: Tail = field(default_factory=Added)
    noise: ClassVar[float] = 0.5
    ladder, cumulative = LAPLACE_LADDER, staticmethod(_laplace_cumulative)

    def probability(self, values: Tensor, scale: Tensor) -> Tensor:
        b = scale.clamp(self.least_scale, 1e10)
        return self._cdf(values + 0.5, b) - self._cdf(values - 0.5, b)

    @staticmethod
    def _cdf(v: Tensor, b: Tensor) -> Tensor:
        return 0.5 - 0.5 * v.sign() * torch.expm1(-v.abs() / b)


# The factorised distribution

class _Bitparm(nn.Module):
    """One monotone stage of the factorised cumulative: t + tanh(t) tanh(a), t = x softplus(h) + b."""

    def __init__(self, channels: int, final: bool):
        super().__init__()
        self.h = nn.Parameter(0.01 * torch.randn(1, channels, 1, 1))
        self.b = nn.Parameter(0.01 * torch.randn(1, channels, 1, 1))
        self.a = None if final else nn.Parameter(0.01 * torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        t = x * F.softplus(self.h) + self.b
        return t if self.a is None else t + torch.tanh(t) * torch.tanh(self.a)


class Factorized(nn.Module):
    """Learned cumulative per channel for the hyper latent z (Balle et al., ICLR 2018, appendix 6.1).

    Args:
        channels: of z.
        tail: of improbable values.
        noise: half width of the uniform noise; HyTIP trains with 0.45.
    """

    def __init__(self, channels: int, tail: Tail = Bounded(), noise: float = 0.45):      # noqa: B008
        super().__init__()
        self.channels, self.tail, self.noise = channels, tail, noise
        self.f1 = _Bitparm(channels, final=False)
        self.f2 = _Bitparm(channels, final=False)
        self.f3 = _Bitparm(channels, final=False)
        self.f4 = _Bitparm(channels, final=True)

    def cdf(self, x: Tensor) -> Tensor:
        """Cumulative probability of x, B C H W."""
        return torch.sigmoid(self.f4(self.f3(self.f2(self.f1(x)))))

    def probability(self, values: Tensor) -> Tensor:
        """P(values - 1/2 < Z < values + 1/2) for B C H W."""
        return self.cdf(values + 0.5) - self.cdf(values - 0.5)

    def bits(self, values: Tensor) -> Tensor:
        return self.tail.bits(self.probability(values))

    def rate(self, values: Tensor) -> Tensor:
        return self.tail.rate(self.probability(values))

    def tables(self) -> TableSet:
        """One table per channel.

        Raises:
            InputError: a parameter is not finite.
        """
        prior = copy.deepcopy(self).to("cpu", torch.float64).requires_grad_(False)
        if not all(bool(p.isfinite().all()) for p in prior.parameters()):
            raise InputError("a probability model in the weights is not finite; use other weights")
        edges = _edges(Z_REACH)
        x = torch.from_numpy(edges).view(1, 1, -1, 1).expand(1, prior.channels, -1, 1)
        cumulative = prior.cdf(x).squeeze(0).squeeze(-1).numpy()
        return TableSet.of(Cumulative(edges, row, _ExactCumulative(prior, channel, edges), 1e-11)
                           for channel, row in enumerate(cumulative))

    def identity(self) -> Hashable:
        values = torch.cat([p.detach().flatten().to(torch.float64) for p in self.parameters()])
        return Factorized, self.channels, self.tail, values.cpu().numpy().tobytes()


class _ExactCumulative:
    """`Factorized.cdf` of one channel at the edges, to DIGITS digits."""

    def __init__(self, prior: Factorized, channel: int, edges: np.ndarray):
        self.edges = edges
        self.stages = [(float(f.h[0, channel]), float(f.b[0, channel]), None if f.a is None else float(f.a[0, channel]))
                       for f in (prior.f1, prior.f2, prior.f3, prior.f4)]

    def __call__(self, n: int) -> mpmath.mpf:
        with mpmath.workdps(DIGITS):
            t = mpmath.mpf(self.edges[n])
            for h, b, a in self.stages:
                t = t * (mpmath.log1p(mpmath.exp(h)) if h <= 20 else h) + b          # PyTorch's softplus
                if a is not None:
                    t = t + mpmath.tanh(t) * mpmath.tanh(a)
            return 1 / (1 + mpmath.exp(-t))
