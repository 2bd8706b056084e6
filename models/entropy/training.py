"""The coder of training: rounding with a straight-through gradient on the signal path, noise on the rate path.

    residual -> round, gradient 1 -> signal            residual + U(-a, a) -> distribution -> bits

The rate is estimated under additive uniform noise (Balle et al., ICLR 2017), the signal sees what evaluation sees
(SPEC section 7; `quant_mode: estUN_outR`). Shapes: residuals B x n, hyper latents B C h w.

Noise counts too many bits where nearly all symbols are 0: at the least scale a residual of 0 costs nothing, and
0.15 bits with noise. Those bits do not fall when the steps grow, so that training prefers steps that are too fine
(docs/small_model.md has figures). `SymbolEstimator` counts what symbols cost.
"""
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.entropy.distributions import Conditional, Factorized


class Noise(Protocol):
    """Where the noise of the rate path comes from."""

    def __call__(self, like: Tensor, half_width: float) -> Tensor:
        """Uniform in (-half_width, half_width), float32, of the shape of `like` (B first)."""


def no_noise(like: Tensor, half_width: float) -> Tensor:
    """Zeros: a loss that repeats without any generator, for golden numbers and finite differences."""
    return torch.zeros_like(like, dtype=torch.float32)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014) on int64 with wrap-around."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class SampleNoise:
    """Noise that is a pure function of each sample's key, the number of the call and the position.

    There is no state to save, and a sample gets the same noise in whatever process, batch or device it is coded.

    Args:
        keys: one int64 per sample (B,), e.g. from `sample_keys`, on the device of what noise is for.
    """

    def __init__(self, keys: Tensor):
        self._keys = keys
        self._calls = 0

    def __call__(self, like: Tensor, half_width: float) -> Tensor:
        self._calls += 1
        stream = _mix(self._keys + self._calls)
        positions = torch.arange(like[0].numel(), device=like.device)
        bits = _mix(stream.unsqueeze(1) + positions.unsqueeze(0) * -0x61C8864680B583EB)
        unit = ((bits >> 40) & 0xFFFFFF).to(torch.float32) / (1 << 24)           # 24 bits: exact in float32
        return ((unit + 2.0 ** -25) * 2 - 1).mul_(half_width).view(like.shape)


def _wide(x: Tensor) -> Tensor:
    """Bits are computed in float32 at least, whatever the format of the networks."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def round_straight_through(x: Tensor) -> Tensor:
    """round(x) with the gradient of x."""
    return x + (x.round() - x).detach()


class TrainingEstimator:
    """Estimates bits that have gradients. `bits[name]` is a float32 tensor (B,), the bits of each sample so far.

    Args:
        noise: of the rate path.
        quantise: of the signal path; the identity makes loss and gradient agree with finite differences.
    """

    def __init__(self, noise: Noise, quantise=round_straight_through):
        self.bits: dict[str, Tensor] = {}
        self._noise, self._quantise = noise, quantise

    def code(self, residual: Tensor, scale: Tensor, distribution: Conditional, name: str) -> Tensor:
        scale = _wide(scale)
        rate = self._rate(_wide(residual), lambda values: distribution.rate(values, scale), distribution.noise)
        self._count(name, rate)
        return self._quantise(residual)

    def code_z(self, z: Tensor, prior: Factorized, size: tuple[int, int], name: str) -> Tensor:
        assert z.shape[-2:] == size
        self._count(name, self._rate(_wide(z), prior.rate, prior.noise))
        return self._quantise(z)

    def _rate(self, values: Tensor, rate: Callable[[Tensor], Tensor], half_width: float) -> Tensor:
        """The bits of each value before it is rounded."""
        return rate(values + self._noise(values, half_width))

    def _count(self, name: str, bits: Tensor) -> None:
        total = bits.flatten(1).sum(1)
        self.bits[name] = self.bits[name] + total if name in self.bits else total


SOFTNESS = 0.05
"""Of the decision between two symbols: at a twentieth of a step from the middle between them, the nearer has 73 %."""


class SymbolEstimator(TrainingEstimator):
    """Estimates the bits of the symbols themselves, without noise.

    Those of the two integers beside a residual, weighted by a logistic function of where it lies between them. Far from
    the middle that is what the symbol costs; near it there is a gradient towards the cheaper of both. Scales and means
    get the gradient of what is coded.
    """

    def _rate(self, values: Tensor, rate: Callable[[Tensor], Tensor], half_width: float) -> Tensor:
        below = values.detach().floor()
        upper = torch.sigmoid((values - below - 0.5) / SOFTNESS)
        return (1 - upper) * rate(below) + upper * rate(below + 1)
