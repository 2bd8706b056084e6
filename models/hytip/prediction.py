"""What HyTIP predicts of a frame from its contexts: the motion-compensated frame and the mask (HyTIP, section 3.3).

Shapes: frames B 3 H W; flow B 2 H W in pixels; contexts at 1/1.
"""
import torch
from torch import Tensor, nn

from models.hytip.config import InterConfig
from models.layers.blocks import conv, leaky
from models.layers.functional import crop, pad_to_multiple


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
