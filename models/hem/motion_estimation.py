"""Motion estimation of DCVC-HEM: a SPyNet of four levels on unnormalised frames; runs in the encoder only.

Shapes: frames B 3 H W in [0, 1], H and W multiples of 8; flow B 2 H W in pixels, channel 0 = x, channel 1 = y.
"""
from collections import OrderedDict
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.codec import Formats
from models.flow.pyramid import coarse_to_fine
from models.layers.blocks import conv

LEVELS = 4


def _level(widths: tuple[int, ...]) -> nn.Sequential:
    layers = OrderedDict()
    for n, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers[f"conv{n}"] = conv(inputs, outputs, 7)
        layers[f"relu{n}"] = nn.ReLU(inplace=True)
    layers.popitem()
    return nn.Sequential(layers)


class MotionEstimation(nn.Module):
    """Coarse-to-fine flow from a reference to the current frame, one network per pyramid level.

    Args:
        hidden: widths of the four hidden 7x7 convolutions of each network.
    """

    def __init__(self, hidden: tuple[int, ...]):
        super().__init__()
        self.moduleBasic = nn.ModuleList(_level((8, *hidden, 2)) for _ in range(LEVELS))

    def formats(self) -> Formats:
        return Formats(analysis=(self,), half=tuple(self.moduleBasic),
                       exact=tuple(level.conv5 for level in self.moduleBasic))

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """The flow such that warp(reference, flow) resembles current."""
        pyramid = [(current, reference)]
        for _ in self.moduleBasic[1:]:
            pyramid.insert(0, tuple(F.avg_pool2d(x, 2) for x in pyramid[0]))
        return coarse_to_fine(pyramid, self.moduleBasic)
