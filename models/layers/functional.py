"""Stateless operations: warping, flow resizing, padding, lower bounds.

Shapes: B C H W; flow B 2 H W in pixels, channel 0 = x, channel 1 = y.
"""
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Backward bilinear warping: output(p) = x(p + flow(p)), with the border repeated outside the picture.

    The sampling grid is the one of the released system: linspace(-1, 1, W) + flow_x / ((W - 1) / 2), which
    makes a side of one pixel ignore its displacement. Positions are float32 at least: in bfloat16, half a pixel
    would be lost at the border of a frame 256 pixels wide.
    """
    height, width = x.shape[-2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    flow = flow.to(dtype)
    xs, ys = _positions(height, width, dtype, x.device)
    grid_x = xs + (flow[:, 0] / ((width - 1) / 2) if width > 1 else torch.zeros_like(flow[:, 0]))
    grid_y = ys + (flow[:, 1] / ((height - 1) / 2) if height > 1 else torch.zeros_like(flow[:, 1]))
    grid = torch.stack((grid_x, grid_y), -1)
    warped = F.grid_sample(x.to(dtype), grid, mode="bilinear", padding_mode="border", align_corners=True)
    return warped.to(x.dtype, memory_format=memory_layout(x))         # PyTorch's kernel forgets the layout


@lru_cache(maxsize=32)
def _positions(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normalised positions of columns (1 1 W) and rows (1 H 1): kept, so that no frame builds them again."""
    with torch.inference_mode(False):                   # whatever mode asks first, training can use the tensors too
        xs = torch.linspace(-1, 1, width, dtype=dtype, device=device)
        ys = torch.linspace(-1, 1, height, dtype=dtype, device=device)
        return xs.view(1, 1, -1), ys.view(1, -1, 1)


def memory_layout(x: Tensor) -> torch.memory_format:
    """channels_last where x is stored so, otherwise contiguous."""
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def halve_flow(flow: Tensor) -> Tensor:
    """The flow at half the resolution, in pixels of that resolution."""
    return F.interpolate(flow, scale_factor=0.5, mode="bilinear", align_corners=False) / 2


def pad_to_multiple(x: Tensor, multiple: int, mode: str = "replicate") -> Tensor:
    """Extend right and bottom until both sides are multiples of `multiple`: by the border, or by `zeros`."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return x
    return F.pad(x, (0, right, 0, bottom), mode="constant" if mode == "zeros" else mode)


def crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The top left part of x, of the given height and width."""
    return x[..., :size[0], :size[1]]


def at_least(x: Tensor, bound: float) -> Tensor:
    """max(x, bound). No gradient passes below the bound: so it is in the released system."""
    return x.clamp_min(bound)
