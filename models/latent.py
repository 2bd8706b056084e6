"""The coding of one latent pair, shared by all codecs: z with a factorised prior, then y around its mean.

Shapes: y B C h w at 1/16 of the frame; z B C' ceil(h/4) ceil(w/4).
"""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.entropy.coder import Coder
from models.entropy.distributions import Conditional, Factorized
from models.layers.blocks import Up, conv, leaky
from models.layers.functional import at_least, pad_to_multiple

Positions = Tensor
"""Flat positions into C*h*w, int64, in coding order."""


def hyper_encoder(block: type[nn.Module], y_channels: int, z_channels: int, hidden: int | None = None
                  ) -> nn.Sequential:
    """y (padded to a multiple of 4) -> z at a quarter of its resolution. `hidden`: as in the blocks."""
    return nn.Sequential(block(y_channels, z_channels, hidden=hidden), conv(z_channels, z_channels, stride=2),
                         leaky(0.01), conv(z_channels, z_channels, stride=2))


def hyper_decoder(block: type[nn.Module], z_channels: int, y_channels: int, hidden: int | None = None
                  ) -> nn.Sequential:
    """z -> features at the resolution of the padded y. `hidden`: as in the blocks."""
    return nn.Sequential(Up(z_channels, z_channels), Up(z_channels, z_channels),
                         block(z_channels, y_channels, hidden=hidden))


def code_hyper(coder: Coder, y: Tensor | None, size: tuple[int, int], encoder: nn.Module, prior: Factorized,
               name: str) -> Tensor:
    """Code z. Returns z_hat.

    Args:
        y: the latent, or None when decoding.
        size: height and width of y.
    """
    z = None if y is None else encoder(pad_to_multiple(y, 4))
    z_hat = coder.code_z(z, prior, (-(-size[0] // 4), -(-size[1] // 4)), name)
    return z_hat.contiguous()             # one memory layout, and so the same sums, whatever the coder


def take(x: Tensor, where: Positions) -> Tensor:
    """The values of x (B C h w) at flat positions, B x n."""
    return x.flatten(1).index_select(1, where)


def put(x: Tensor, where: Positions, values: Tensor) -> Tensor:
    """A copy of x (B C h w) with `values` (B x n) at flat positions."""
    return x.flatten(1).index_copy(1, where, values).view_as(x)


def code_latent(coder: Coder, y: Tensor | None, scales: Tensor, means: Tensor, distribution: Conditional,
                name: str) -> Tensor:
    """Code y in a single pass. Returns y_hat = round(y - mean) + mean, in the units of y."""
    residual = None if y is None else (y - means).flatten(1)
    return coder.code(residual, scales.flatten(1), distribution, name).view_as(means) + means


def code_latent_in_passes(coder: Coder, y: Tensor | None, scales: Tensor, means: Tensor,
                          passes: Sequence[Positions], refine: Callable[[int, Tensor], tuple[Tensor, Tensor]],
                          distribution: Conditional, name: str) -> Tensor:
    """Code y in spatial passes, each with parameters refined by what is known so far. Returns y_hat.

    Args:
        y: the latent B C h w, or None when decoding.
        scales, means: parameters of the first pass, B C h w.
        passes: the positions that each pass owns; together they cover C*h*w once.
        refine: `refine(n, y_hat)` gives scales and means after pass n, from y_hat with zeros where nothing is
            coded yet.
    """
    y_hat = torch.zeros_like(means)
    for n, where in enumerate(passes):
        mean = take(means, where)
        residual = None if y is None else take(y, where) - mean
        y_hat = put(y_hat, where, coder.code(residual, take(scales, where), distribution, name) + mean)
        if n + 1 < len(passes):
            scales, means = refine(n, y_hat)
    return y_hat


LEAST_STEP = 0.5
"""Bound of the step of each element."""

Refine = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""y_hat with zeros where nothing is coded yet, step, and the scales and means of the first pass -> scales and means."""


def code_with_parameters(coder: Coder, y: Tensor | None, parameters: Tensor, distribution: Conditional, name: str,
                         passes: Sequence[Positions] | None = None, refine: Callable[[int], Refine] | None = None,
                         bound: Callable[[Tensor, float], Tensor] = at_least) -> Tensor:
    """Code y from the parameters that a prior gives, in one pass or several. Returns y_hat, in the units of y.

    Args:
        y: the latent, B C h w, or None when decoding.
        parameters: step, scale and mean of each element, B 3C h w. The latter two are of y divided by the step.
        passes, refine: as in `code_latent_in_passes`, where `refine(n)` gives what refines after pass n.
        bound: keeps steps from below LEAST_STEP; codecs differ in its gradient.
    """
    step, scales, means = parameters.chunk(3, 1)
    step = bound(step, LEAST_STEP)
    y = None if y is None else y / step
    if passes is None:
        return code_latent(coder, y, scales, means, distribution, name) * step
    return code_latent_in_passes(coder, y, scales, means, passes,
                                 lambda n, y_hat: refine(n)(y_hat, step, scales, means), distribution, name) * step
