"""Temporal context mining and masking (HyTIP, section 3.3; DCVC-TCM): what the reference says about the frame.

Shapes: frames B 3 H W; flow B 2 H W in pixels; features and contexts at 1/1, 1/2 and 1/4.
"""
import torch
from torch import Tensor, nn

from config import InterConfig
from models.layers.blocks import Res, conv, leaky, subpel
from models.layers.functional import crop, pad_to_multiple

Pyramid = tuple[Tensor, Tensor, Tensor]
"""Features at 1/1, 1/2 and 1/4."""


class FeatureExtractor(nn.Module):
    """Features of the reference at three scales."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.conv1 = conv(c.g_ch_1x, c.g_ch_1x)
        self.res_block1 = Res(c.g_ch_1x)
        self.conv2 = conv(c.g_ch_1x, c.g_ch_2x, stride=2)
        self.res_block2 = Res(c.g_ch_2x)
        self.conv3 = conv(c.g_ch_2x, c.g_ch_4x, stride=2)
        self.res_block3 = Res(c.g_ch_4x)

    def forward(self, x: Tensor) -> Pyramid:
        x1 = self.res_block1(self.conv1(x))
        x2 = self.res_block2(self.conv2(x1))
        return x1, x2, self.res_block3(self.conv3(x2))


class ContextFusion(nn.Module):
    """Coarse-to-fine fusion of the warped features; each context is the warped feature plus a correction."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.conv3_up = subpel(c.g_ch_4x, c.g_ch_2x, 3)
        self.res_block3_up = Res(c.g_ch_2x)
        self.conv3_out = conv(c.g_ch_4x, c.g_ch_4x)
        self.res_block3_out = Res(c.g_ch_4x)
        self.conv2_up = subpel(2 * c.g_ch_2x, c.g_ch_1x, 3)
        self.res_block2_up = Res(c.g_ch_1x)
        self.conv2_out = conv(2 * c.g_ch_2x, c.g_ch_2x)
        self.res_block2_out = Res(c.g_ch_2x)
        self.conv1_out = conv(2 * c.g_ch_1x, c.g_ch_1x)
        self.res_block1_out = Res(c.g_ch_1x)

    def forward(self, warped: Pyramid) -> Pyramid:
        c1, c2, c3 = warped
        half = torch.cat((self.res_block3_up(self.conv3_up(c3)), c2), 1)
        out1 = self.conv1_out(torch.cat((self.res_block2_up(self.conv2_up(half)), c1), 1))
        return (self.res_block1_out(out1).add_(c1), self.res_block2_out(self.conv2_out(half)).add_(c2),
                self.res_block3_out(self.conv3_out(c3)).add_(c3))


class FrameGenerator(nn.Module):
    """The motion-compensated frame from the finest context."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.conv1 = conv(c.g_ch_1x, 3)
        self.conv2 = conv(3, 3)
        self.adaptor = conv(c.g_ch_1x, 3, 1)
        self.act = leaky(0.01)

    def forward(self, context: Tensor) -> Tensor:
        return self.adaptor(context).add_(self.act(self.conv2(self.act(self.conv1(context)))))


class _MaskUNet(nn.Module):
    def __init__(self, c: InterConfig):
        super().__init__()
        w1, w2, w3 = c.mask_channels
        weak, strong = leaky(0.01), leaky(0.1)
        self.down_1 = nn.Sequential(conv(5, w1), weak, conv(w1, w2, stride=2), strong)
        self.down_2 = nn.Sequential(conv(w2, w2), weak, conv(w2, w3, stride=2), strong)
        self.conv = nn.Sequential(conv(w3, w3), weak, conv(w3, w3), strong)
        self.up_2 = nn.Sequential(self._up(2 * w3, w3), weak, conv(w3, w2), strong)
        self.up_1 = nn.Sequential(self._up(2 * w2, w2), weak, conv(w2, w1), strong, conv(w1, 1))

    @staticmethod
    def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
        return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        down_1 = self.down_1(x)
        down_2 = self.down_2(down_1)
        up_2 = self.up_2(torch.cat((self.conv(down_2), down_2), 1))
        return self.up_1(torch.cat((up_2, down_1), 1))


class MaskGenerator(nn.Module):
    """The soft mask of masked conditional residual coding, from decoded flow and predicted frame."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.net = _MaskUNet(c)
        self.sigmoid = nn.Sigmoid()

    def forward(self, flow_hat: Tensor, mc_frame: Tensor) -> Tensor:
        """B 1 H W in (0, 1), for any H and W."""
        mask = self.sigmoid(self.net(pad_to_multiple(torch.cat((flow_hat, mc_frame), 1), 4)))
        return crop(mask, mc_frame.shape[-2:])
