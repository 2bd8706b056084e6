"""Probability models of quantised latents (SPEC section 7).

Every model answers `likelihood(values, ...)`: the probability of the unit interval around each value.
"""
import math

import torch
import torch.nn.functional as F
from compressai.entropy_models import GaussianConditional
from torch import Tensor, nn


class GaussianModel(GaussianConditional):
    """Zero-mean Gaussian of the motion and inter latents: scale at least 0.11, likelihood at least 1e-9.

    CompressAI's `GaussianConditional` (Balle et al., ICLR 2018), whose buffers are part of the released checkpoints.
    """

    def __init__(self):
        super().__init__(None, scale_bound=0.11)

    def likelihood(self, values: Tensor, scale: Tensor) -> Tensor:
        """P(values - 1/2 < Y < values + 1/2), elementwise. Both tensors have the same shape."""
        return self.likelihood_lower_bound(self._likelihood(values, scale))


class NormalModel:
    """Zero-mean Gaussian of the intra latent, with the scale clamped to [1e-5, 1e10] (DCVC-DC intra).

    The cumulative is written with erf, as in the release: in float32 its tails are coarser than those of
    `GaussianModel`, and the estimated bits show it.
    """

    def likelihood(self, values: Tensor, scale: Tensor) -> Tensor:
        """P(values - 1/2 < Y < values + 1/2), elementwise. Both tensors have the same shape."""
        precision = scale.clamp(1e-5, 1e10).reciprocal()
        return self._cdf((values + 0.5) * precision) - self._cdf((values - 0.5) * precision)

    @staticmethod
    def _cdf(x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


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


class FactorizedPrior(nn.Module):
    """Learned cumulative per channel for the hyper latent z (Balle et al., ICLR 2018, appendix 6.1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.f1 = _Bitparm(channels, final=False)
        self.f2 = _Bitparm(channels, final=False)
        self.f3 = _Bitparm(channels, final=False)
        self.f4 = _Bitparm(channels, final=True)

    def cdf(self, x: Tensor) -> Tensor:
        """Cumulative probability of x, B C H W."""
        return torch.sigmoid(self.f4(self.f3(self.f2(self.f1(x)))))

    def likelihood(self, values: Tensor) -> Tensor:
        """P(values - 1/2 < Z < values + 1/2) for B C H W."""
        return self.cdf(values + 0.5) - self.cdf(values - 0.5)
