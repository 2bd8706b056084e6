"""Motion estimation with SPyNet (Ranjan and Black, CVPR 2017); runs in the encoder only.

Shapes: frames B 3 H W in [0, 1]; flow B 2 H W in pixels, channel 0 = x, channel 1 = y.
"""
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.fields import require
from models.codec import Formats
from models.flow.block_fit import LARGEST, fit_blocks
from models.flow.pyramid import coarse_to_fine
from models.layers.blocks import conv
from models.layers.functional import crop, pad_to_multiple


@dataclass(frozen=True, kw_only=True)
class MotionEstimationConfig:
    """SPyNet (Ranjan and Black, CVPR 2017).

    Attributes:
        hidden_channels: widths of the four hidden 7x7 convolutions of each block.
        levels: pyramid levels, each with a block of its own.
        block_side: side of blocks whose pixels move together, each by the vector that warps it best (block_fit.py), in
            pixels, a power of 2; None, as released: each pixel moves by itself.
    """
    architecture = "MENet"
    hidden_channels: tuple[int, ...] = (32, 64, 32, 16)
    levels: int = 5
    block_side: int | None = None

    def __post_init__(self):
        require(len(self.hidden_channels) == 4, "hidden_channels must have 4 entries")
        require(self.levels <= 5, f"levels: {self.levels} is more than 5, the levels of a frame aligned to 16")
        require(self.block_side in (None, 1, 2, 4, 8, 16, 32, LARGEST),
                f"block_side: {self.block_side} is no power of 2 up to {LARGEST}")


class MotionEstimation(nn.Module):
    """Coarse-to-fine flow from a reference to the current frame, one block per pyramid level."""

    def __init__(self, config: MotionEstimationConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor((0.406, 0.456, 0.485)).view(3, 1, 1))
        self.register_buffer("std", torch.tensor((0.225, 0.224, 0.229)).view(3, 1, 1))
        self.Blocks = nn.ModuleList(self._block((8, *config.hidden_channels, 2)) for _ in range(config.levels))

    @staticmethod
    def _block(widths: tuple[int, ...]) -> nn.Sequential:
        layers = []
        for inputs, outputs in pairwise(widths):
            layers += [conv(inputs, outputs, 7), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers[:-1])

    def formats(self) -> Formats:
        return Formats(analysis=(self,), half=tuple(self.Blocks), exact=tuple(block[-1] for block in self.Blocks))

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """The flow such that warp(reference, flow) resembles current. Any size; padded inside."""
        pair = torch.cat([(x - self.mean) / self.std for x in (current, reference)], 1)
        pyramid = [pad_to_multiple(pair, 2 ** (len(self.Blocks) - 1))]
        for _ in self.Blocks[1:]:
            pyramid.insert(0, F.avg_pool2d(pyramid[0], 2))
        flow = coarse_to_fine([level.chunk(2, 1) for level in pyramid], self.Blocks)
        flow = crop(flow, pair.shape[-2:])
        side = self.config.block_side
        return flow if side is None else fit_blocks(flow, current, reference, side)

