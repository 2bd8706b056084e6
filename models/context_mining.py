"""Temporal context mining (DCVC-TCM, IEEE TMM 2022; DCVC-HEM; HyTIP, section 3.3): contexts from the reference.

Shapes: flow B 2 H W in pixels; features and contexts at 1/1, 1/2 and 1/4, of w1, w2 and w3 channels.
"""
import torch
from torch import Tensor, nn

from models.layers.blocks import Res, conv, subpel
from models.layers.functional import halve_flow, warp

Pyramid = tuple[Tensor, Tensor, Tensor]
"""Features at 1/1, 1/2 and 1/4."""


class FeatureExtractor(nn.Module):
    """Features of the reference at three scales."""

    def __init__(self, w1: int, w2: int, w3: int):
        super().__init__()
        self.conv1 = conv(w1, w1)
        self.res_block1 = Res(w1)
        self.conv2 = conv(w1, w2, stride=2)
        self.res_block2 = Res(w2)
        self.conv3 = conv(w2, w3, stride=2)
        self.res_block3 = Res(w3)

    def forward(self, x: Tensor) -> Pyramid:
        x1 = self.res_block1(self.conv1(x))
        x2 = self.res_block2(self.conv2(x1))
        return x1, x2, self.res_block3(self.conv3(x2))


def warped(features: Pyramid, flow: Tensor) -> Pyramid:
    """Each level displaced by the flow at its resolution."""
    half = halve_flow(flow)
    return tuple(map(warp, features, (flow, half, halve_flow(half))))


class ContextFusion(nn.Module):
    """Coarse-to-fine fusion of the warped features; each context is the warped feature plus a correction."""

    def __init__(self, w1: int, w2: int, w3: int):
        super().__init__()
        self.conv3_up = subpel(w3, w2, 3)
        self.res_block3_up = Res(w2)
        self.conv3_out = conv(w3, w3)
        self.res_block3_out = Res(w3)
        self.conv2_up = subpel(2 * w2, w1, 3)
        self.res_block2_up = Res(w1)
        self.conv2_out = conv(2 * w2, w2)
        self.res_block2_out = Res(w2)
        self.conv1_out = conv(2 * w1, w1)
        self.res_block1_out = Res(w1)

    def forward(self, warped: Pyramid) -> Pyramid:
        c1, c2, c3 = warped
        half = torch.cat((self.res_block3_up(self.conv3_up(c3)), c2), 1)
        out1 = self.conv1_out(torch.cat((self.res_block2_up(self.conv2_up(half)), c1), 1))
        return (self.res_block1_out(out1).add_(c1), self.res_block2_out(self.conv2_out(half)).add_(c2),
                self.res_block3_out(self.conv3_out(c3)).add_(c3))
