"""Stateless operations: warping, flow resizing, padding, lower bounds.

Shapes: B C H W; flow B 2 H W in pixels, channel 0 = x, channel 1 = y.
"""
import torch
import torch.nn.functional as F
from compressai.ops.bound_ops import LowerBoundFunction
from torch import Tensor


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Backward bilinear warping: output(p) = x(p + flow(p)), with the border repeated outside the picture.

    The sampling grid is the one of the released system: linspace(-1, 1, W) + flow_x / ((W - 1) / 2), which
    makes a side of one pixel ignore its displacement.
    """
    height, width = x.shape[-2:]
    xs = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)
    ys = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)
    grid_x = xs.view(1, 1, -1) + (flow[:, 0] / ((width - 1) / 2) if width > 1 else torch.zeros_like(flow[:, 0]))
    grid_y = ys.view(1, -1, 1) + (flow[:, 1] / ((height - 1) / 2) if height > 1 else torch.zeros_like(flow[:, 1]))
    grid = torch.stack((grid_x, grid_y), -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def halve_flow(flow: Tensor) -> Tensor:
    """The flow at half the resolution, in pixels of that resolution."""
    return F.interpolate(flow, scale_factor=0.5, mode="bilinear", align_corners=False) / 2


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Replicate the right and bottom borders until both sides are multiples of `multiple`."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The top left part of x, of the given height and width."""
    return x[..., :size[0], :size[1]]


def at_least(x: Tensor, bound: float) -> Tensor:
    """max(x, bound); the gradient still passes below the bound where it would raise x (CompressAI's LowerBound)."""
    return LowerBoundFunction.apply(x, x.new_full((1,), bound))
