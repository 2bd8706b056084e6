"""The three-scale U-shaped refinement network of intra codecs and frame generators."""
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.layers.blocks import subpel


class UNet(nn.Module):
    """Refine features at three scales.

    Args:
        inputs, outputs: channels at full resolution.
        block: makes a block of given inputs and outputs: `GateBlock` (intra) or `SumBlock` (inter) in HyTIP,
            `SqueezeExciteBlock` in DCVC-HEM.
        widths: channels at 1/1, 1/2 and 1/4; (32, 64, 128) in the released models.
        refine: makes a block of given channels for the coarsest scale; by default as `block` does.

    Height and width of the input must be multiples of 4.
    """

    def __init__(self, inputs: int, outputs: int, block: Callable[[int, int], nn.Module],
                 widths: tuple[int, int, int], refine: Callable[[int], nn.Module] | None = None):
        super().__init__()
        w1, w2, w3 = widths
        self.pool = nn.MaxPool2d(2)
        self.conv1 = block(inputs, w1)
        self.conv2 = block(w1, w2)
        self.conv3 = block(w2, w3)
        self.context_refine = nn.Sequential(*(refine(w3) if refine else block(w3, w3) for _ in range(4)))
        self.up3 = subpel(w3, w2, 1)
        self.up_conv3 = block(2 * w2, w2)
        self.up2 = subpel(w2, w1, 1)
        self.up_conv2 = block(2 * w1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.conv1(x)
        x2 = self.conv2(self.pool(x1))
        x3 = self.context_refine(self.conv3(self.pool(x2)))
        x2 = self.up_conv3(torch.cat((x2, self.up3(x3)), 1))
        x1 = torch.cat((x1, self.up2(x2)), 1)                       # by its name the narrower one is freed
        return self.up_conv2(x1)
