"""Vectors of blocks for a flow of pixels: what a motion codec can afford, chosen by what it warps; encoder only.

A flow that was learnt from what it warps differs from pixel to pixel where that changes nothing (flat areas, along
edges), and the mean of a block's vectors is not the vector that serves the block best. Here each block gets the vector
that minimises

    sum over its pixels of (w + g (v - f) - x)^2  +  prior |v - u|^2

where f is the estimated flow, w the reference warped by it, g the gradient of the picture there, x the current frame,
u the vector of the block around: a step of Lucas and Kanade (IJCAI 1981) from f, by blocks of 64 down to the least
side. Where a block tells nothing, it moves with its surroundings, which costs few bits.

Shapes: frames B 3 H W in [0, 1]; flow B 2 H W in pixels.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers.functional import crop, pad_to_multiple, warp

LARGEST = 64
"""Side of the blocks that it begins with."""

PRIOR = 0.05
"""Of 0.03, 0.05 and 0.1 none is much better; 1 loses detail."""


def fit_blocks(flow: Tensor, current: Tensor, reference: Tensor, side: int, prior: float = PRIOR) -> Tensor:
    """A flow that is constant in blocks of `side` pixels, a power of 2 up to LARGEST. The gradient reaches `flow`.

    Args:
        prior: weight of a difference of one pixel from the vector of the block around, as a sum of squared differences
            of samples in [0, 1].
    """
    with torch.no_grad():
        moved = warp(reference, flow)
        gx, gy = (0.5 * (a + b) for a, b in zip(_gradients(moved), _gradients(current)))
        known = current - moved
        matrix = torch.cat([x.sum(1, keepdim=True) for x in (gx * gx, gx * gy, gy * gy)], 1)
        right = torch.cat([x.sum(1, keepdim=True) for x in (gx * known, gy * known)], 1)
    right = right + _times(matrix, flow)
    levels = [_by_blocks(torch.cat((matrix, right), 1), side)]
    while side << len(levels) <= LARGEST:
        levels.append(4 * F.avg_pool2d(levels[-1], 2))
    around = F.avg_pool2d(pad_to_multiple(flow, LARGEST), LARGEST)
    for level in reversed(levels):
        vectors = _solve(level[:, :3], level[:, 3:] + prior * around, prior)
        around = F.interpolate(vectors, scale_factor=2, mode="bilinear", align_corners=False)
    return crop(F.interpolate(vectors, scale_factor=side, mode="nearest"), flow.shape[-2:])


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, per pixel."""
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (0.5 * (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]), 0.5 * (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]))


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Symmetric 2x2 matrices (B 3 H W: xx, xy, yy) times vectors (B 2 H W)."""
    xx, xy, yy = matrix.chunk(3, 1)
    x, y = vector.chunk(2, 1)
    return torch.cat((xx * x + xy * y, xy * x + yy * y), 1)


def _solve(matrix: Tensor, right: Tensor, more: float) -> Tensor:
    """v with (matrix + more * identity) v = right."""
    xx, xy, yy = matrix.chunk(3, 1)
    xx, yy = xx + more, yy + more
    x, y = right.chunk(2, 1)
    return torch.cat((yy * x - xy * y, xx * y - xy * x), 1) / (xx * yy - xy * xy)


def _by_blocks(x: Tensor, side: int) -> Tensor:
    """Sums over blocks; pixels outside the picture, up to a multiple of LARGEST, tell nothing."""
    height, width = x.shape[-2:]
    return side * side * F.avg_pool2d(F.pad(x, (0, -width % LARGEST, 0, -height % LARGEST)), side)
