"""The recursion of SPyNet (Ranjan and Black, CVPR 2017): each pyramid level corrects the flow of the coarser one.

Shapes: frames B 3 H W; flow B 2 H W in pixels of its level.
"""
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.functional import warp


def coarse_to_fine(pyramid: Sequence[Sequence[Tensor]], networks: Iterable[nn.Module]) -> Tensor:
    """The flow at the finest level, such that warp(reference, flow) resembles the current frame.

    Args:
        pyramid: current frame and reference of each level, the coarsest first.
        networks: of each level: current frame, warped reference and flow, 8 channels -> what to add to the flow.
    """
    flow = torch.zeros_like(pyramid[0][0][:, :2])
    for (current, reference), network in zip(pyramid, networks, strict=True):
        size = current.shape[-2:]
        if flow.shape[-2:] != size:
            flow = 2 * F.interpolate(flow, size, mode="bilinear", align_corners=False)
        flow = flow + network(torch.cat((current, warp(reference, flow), flow), 1))
    return flow
