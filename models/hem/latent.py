"""The coding of one latent around its hyperprior with the dual spatial prior (DCVC-HEM, section 3.2).

    y / step, means, scales -> pass 0: half of the channels at even positions, the other half at odd ones
    y_spatial_prior -> new means, scales -> pass 1: the rest

A position is even where row + column is. Shapes: y B C H/16 W/16.
"""
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from models.codec import Size
from models.entropy.coder import Coder
from models.entropy.distributions import Conditional, lower_bound
from models.latent import LEAST_STEP, code_with_parameters
from models.spatial_prior import DUAL_SCHEDULE, passes


def channel_steps(basic: Tensor, step: Tensor) -> Tensor:
    """What divides a latent before its hyperprior: the bounded step of each channel times the global one.

    Args:
        basic: 1 C 1 1.
        step: positive, 1 1 1 or B 1 1 1.
    """
    return lower_bound(basic, LEAST_STEP) * step


def code_with_dual_prior(coder: Coder, y: Tensor | None, parameters: Tensor, spatial_prior: nn.Module,
                         distribution: Conditional, name: str) -> Tensor:
    """Code y in two passes. Returns y_hat, in the units of y.

    Args:
        y: the latent, B C h w, or None when decoding.
        parameters: step, scale and mean of each element, B 3C h w. The latter two are of y divided by the step.
        spatial_prior: B 4C h w -> scale and mean of the first half of channels, then of the second, B 2C h w.
        distribution: of y around its mean.
    """
    def refine(y_hat: Tensor, step: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        scale_a, mean_a, scale_b, mean_b = spatial_prior(torch.cat((y_hat, means, scales, step), 1)).chunk(4, 1)
        return torch.cat((scale_a, scale_b), 1), torch.cat((mean_a, mean_b), 1)

    where = dual_passes(parameters.shape[1] // 3)(tuple(parameters.shape[-2:]), parameters.device)
    return code_with_parameters(coder, y, parameters, distribution, name, where, lambda _: refine, lower_bound)


def dual_passes(channels: int) -> Callable[[Size, torch.device], tuple[Tensor, ...]]:
    """The positions of both passes in a latent of given channels, from its height, width and device."""
    return partial(passes, DUAL_SCHEDULE, channels)
