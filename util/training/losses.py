"""What is minimised: rate + lambda * 255^2 * distortion, from named terms (HyTIP, section 3.5).

Shapes: frames B 3 H W in [0, 1]; every term is a tensor (B,), one value per sample.
"""
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from pytorch_msssim import ms_ssim
from torch import Tensor

from models.rates import RATES
from util.errors import InputError

Terms = dict[str, Tensor]
"""Value of each term by name, each (B,)."""

TERMS = ("m_rate", "r_rate", "rate", "warped_distortion", "mc_distortion", "distortion", "motion_mse",
         "feature_frame_distortion", *(f"mc_distortion{i}" for i in range(4)), "i_rate", "flow_distortion",
         "flow_roughness")
"""m_rate, r_rate and their sum rate in bits per pixel; distortions of Warp(reference, decoded flow), mc_frame, the
decoded frame, the frame made of ref_feature, and (0..3) mc_frame and the three pre-training heads; motion_mse of the
decoded against the estimated flow. Of stage intra: i_rate; of stage flow: how badly the estimated flow warps at four
scales, and how rough it is."""

LAMBDAS = {2: 0.0035, 3: 0.0067, 4: 0.0130, 5: 0.03125}
"""lambda of each quality level."""

PSNR_SCALE = 255 ** 2


class Distortion:
    """D of the loss, per sample.

    Args:
        ssim: (1 - MS-SSIM) / (32 sqrt 2) instead of the mean squared error.
    """

    def __init__(self, ssim: bool = False):
        self.ssim = ssim

    def __call__(self, x: Tensor, target: Tensor) -> Tensor:
        """D of each sample (B,), always in float32."""
        with torch.autocast(x.device.type, enabled=False):
            x, target = x.float(), target.float()
            if self.ssim:
                return (1 - _ms_ssim(x, target)) / (32 * math.sqrt(2))
            return (x - target).square().flatten(1).mean(1)

    def lambda_of_level(self, level: int) -> float:
        """lambda of a quality level 2..5; for MS-SSIM the levels below 5 are rescaled as in the release."""
        if level not in LAMBDAS:
            raise InputError(f"--quality_level {level} is outside {min(LAMBDAS)}..{max(LAMBDAS)}")
        value = LAMBDAS[level]
        return int(value * 1e4) * 125 / 1e6 if self.ssim and level < max(LAMBDAS) else value

    def lambdas_of_rates(self, level: int, given: Sequence[float] | None = None) -> Tensor:
        """lambda of QP 0..63, log-linear from quality level - 3 to the quality level. float32 (64,).

        Args:
            given: `lambdas` of a recipe instead: of QP 0 and of QP 63, or of more QPs at equal distances.

        Raises:
            InputError: there is no level three below.
        """
        if given is None:
            if level - 3 not in LAMBDAS:
                raise InputError(f"--quality_level {level}: variable rate needs the lambdas of this level and of "
                                 f"three below; use --quality_level {max(LAMBDAS)}")
            given = self.lambda_of_level(level - 3), self.lambda_of_level(level)
        if len(given) > 2:
            where = np.linspace(0, RATES - 1, len(given))
            return torch.from_numpy(np.exp(np.interp(np.arange(RATES), where, np.log(given)))).float()
        return torch.from_numpy(np.exp(np.linspace(*np.log(given), RATES))).float()


def _ms_ssim(x: Tensor, target: Tensor) -> Tensor:
    """MS-SSIM of each sample (B,), with window and weights of pytorch-msssim kept on the device: the package would send
    them there six times a call, and the host would wait each time."""
    window, weights = _ms_ssim_constants(x.shape[1], x.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "To copy construct from a tensor")   # which is what is wanted
        return ms_ssim(x, target, data_range=1, size_average=False, win=window, weights=weights)


@lru_cache(maxsize=8)
def _ms_ssim_constants(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gaussian of 11 taps, deviation 1.5 (channels 1 1 11), and the weights of five scales (Wang et al., 2003)."""
    taps = torch.exp(-((torch.arange(11, dtype=torch.float32) - 5) ** 2) / (2 * 1.5 ** 2))
    window = (taps / taps.sum()).view(1, 1, 1, -1).repeat(channels, 1, 1, 1)
    return window.to(device), torch.tensor((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)).to(device)


@dataclass(frozen=True)
class Summand:
    """factor * term, times the frame's weight where asked for."""
    term: str
    factor: float = 1.0
    weighted: bool = False


_CONTEXT_WEIGHTS = re.compile(r"[\d.]+(_[\d.]+){3}/\d+")


@dataclass(frozen=True)
class LossExpression:
    """One side (R or D) of a phase's `loss_on`: summands joined by `/`, or `None`.

    `0.5*mc_distortion/0.5*distortion` is the mean of two terms; `frame_weight*distortion` weights frames;
    `1_0.5_0.25_0.125/4` is a quarter of the weighted sum of mc_distortion0..3 (stage trainmc).
    """
    text: str

    @cached_property
    def summands(self) -> tuple[Summand, ...]:
        if self.text == "None":
            return ()
        if self.is_context_weighting:
            weights, divisor = self.text.split("/")
            return tuple(Summand(f"mc_distortion{i}", float(weight) / float(divisor))
                         for i, weight in enumerate(weights.split("_")) if float(weight))
        return tuple(self._summand(part) for part in self.text.split("/"))

    @property
    def is_context_weighting(self) -> bool:
        return _CONTEXT_WEIGHTS.fullmatch(self.text) is not None

    @property
    def terms(self) -> frozenset[str]:
        return frozenset(summand.term for summand in self.summands)

    def __post_init__(self):
        try:
            unknown = self.terms - set(TERMS)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"loss_on {self.text!r} is no sum of terms; write for example 0.5*mc_distortion/"
                             "0.5*distortion, frame_weight*distortion, 1_0.5_0.25_0.125/4 or None") from None
        for term in sorted(unknown):
            raise InputError(f"loss_on {self.text!r}: term {term!r} is unknown; choose from {', '.join(TERMS)}")

    @staticmethod
    def _summand(part: str) -> Summand:
        *factors, term = part.strip().split("*")
        weighted = "frame_weight" in factors
        numbers = [float(factor) for factor in factors if factor != "frame_weight"]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(part)
        return Summand(term, math.prod(numbers), weighted)

    def value(self, terms: Terms, frame_weight: float = 1.0) -> Tensor | float:
        """The sum (B,); 0 for `None`."""
        return sum(terms[s.term] * (s.factor * (frame_weight if s.weighted else 1.0)) for s in self.summands)


@dataclass(frozen=True)
class Loss:
    """The loss of a phase.

    Attributes:
        rate, distortion: the two sides of `loss_on`.
        frame_weights: of the frames of a clip by position, entry 0 being the I-frame's.
    """
    rate: LossExpression
    distortion: LossExpression
    frame_weights: tuple[float, ...] = ()

    @property
    def terms(self) -> frozenset[str]:
        """The terms that need gradients."""
        return self.rate.terms | self.distortion.terms

    def value(self, frames: list[Terms], scale: Tensor | float) -> Tensor:
        """Mean over the P-frames of a clip, (B,).

        Args:
            frames: the terms of each P-frame.
            scale: lambda * 255^2, of each sample (B,) or of all. The weighted distortions of `trainmc` are taken as
                they are: there is no rate to weigh them against.
        """
        if self.distortion.is_context_weighting:
            scale = 1.0
        total = 0.0
        for position, terms in enumerate(frames, start=1):
            weight = self.frame_weights[position] if position < len(self.frame_weights) else 1.0
            total = total + self.rate.value(terms, weight) + scale * self.distortion.value(terms, weight)
        return total / len(frames)
