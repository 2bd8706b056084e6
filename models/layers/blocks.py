"""Convolutional blocks shared by the intra, motion and inter codecs.

The blocks are those of DCVC-DC and DCVC-FM, on which HyTIP builds (ICCV 2025, section 3). Attribute names are
the ones found in the released checkpoints. Shapes: every block maps B C H W to B C' H' W'.

Sums and activations work in place on the output of a convolution, which its gradient does not need: a third of the
memory at full resolution.
"""
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.bands import in_bands


def leaky(slope: float) -> nn.LeakyReLU:
    """A leaky ReLU in the place of its input, which must be nobody else's."""
    return nn.LeakyReLU(slope, inplace=True)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, **kwargs) -> nn.Conv2d:
    """A convolution that pads by half its kernel."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, **kwargs)


def subpel(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution to four times `outputs` channels, then a pixel shuffle that doubles height and width."""
    return nn.Sequential(conv(inputs, 4 * outputs, kernel), nn.PixelShuffle(2))


class DepthConv(nn.Module):
    """Pointwise, depthwise 3x3, pointwise convolution with a skip connection.

    Args:
        hidden: channels inside, by default as many as inputs. With it a skip between different widths has no weights:
            it hands the last inputs on where there are more than outputs, and nothing where there are fewer.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int | None = None):
        super().__init__()
        inner = hidden or inputs
        self.conv1 = nn.Sequential(conv(inputs, inner, 1), leaky(0.01))
        self.depth_conv = conv(inner, inner, groups=inner)
        self.conv2 = conv(inner, outputs, 1)
        self.adaptor = conv(inputs, outputs, 1) if inputs != outputs and hidden is None else None

    def forward(self, x: Tensor, top: int = 0, bottom: int | None = None) -> Tensor:
        """Rows top..bottom - 1 of the result; all of them by default."""
        bottom = x.shape[2] if bottom is None else bottom
        first = max(top - 1, 0)                                 # the depthwise kernel reaches one row further
        deep = self.depth_conv(self.conv1(x[:, :, first:bottom + 1]))[:, :, top - first:bottom - first]
        out, x = self.conv2(deep), x[:, :, top:bottom]
        if self.adaptor is not None:
            return out.add_(self.adaptor(x))
        surplus = x.shape[1] - out.shape[1]
        return out if surplus < 0 else out.add_(x[:, surplus:])


class GateFFN(nn.Module):
    """Feed-forward block in which one half of the hidden channels gates the other (intra codec)."""

    def __init__(self, channels: int, expansion: int = 4, hidden: int | None = None):
        super().__init__()
        self.widest = 2 * hidden if hidden else expansion * channels
        self.conv = conv(channels, self.widest, 1)
        self.conv_out = conv(self.widest // 2, channels, 1)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, 1)
        return self.conv_out(a * self.act(b)).add_(x)


class SumFFN(nn.Module):
    """Feed-forward block in which two differently activated halves are added (motion and inter codecs)."""

    def __init__(self, channels: int, expansion: int = 4, hidden: int | None = None):
        super().__init__()
        self.widest = 2 * hidden if hidden else expansion * channels
        self.conv = conv(channels, self.widest, 1)
        self.conv_out = conv(self.widest // 2, channels, 1)
        self.act1 = nn.LeakyReLU(0.1)
        self.act2 = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, 1)
        return self.conv_out(self.act1(a).add_(self.act2(b))).add_(x)


class PlainFFN(nn.Module):
    """Feed-forward block of two activated pointwise convolutions (prior networks)."""

    def __init__(self, channels: int, expansion: int = 4, hidden: int | None = None):
        super().__init__()
        self.widest = hidden or max(min(expansion * channels, 1024), min(expansion, 2) * channels)
        self.conv = nn.Sequential(conv(channels, self.widest, 1), leaky(0.1),
                                  conv(self.widest, channels, 1), leaky(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class _DepthConvBlock(nn.Module):
    """A depthwise and a feed-forward half.

    Args:
        expansion: hidden channels of the feed-forward half, as a multiple of the outputs.
        hidden: channels inside both halves instead (the two that gate or sum: each), for wide inputs and outputs.
    """
    ffn: type[nn.Module]

    def __init__(self, inputs: int, outputs: int | None = None, expansion: int = 4, hidden: int | None = None):
        super().__init__()
        outputs = inputs if outputs is None else outputs
        self.block = nn.Sequential(DepthConv(inputs, outputs, hidden), self.ffn(outputs, expansion, hidden))

    def forward(self, x: Tensor) -> Tensor:
        depth, ffn = self.block
        outputs = depth.conv2.out_channels
        return in_bands(lambda top, bottom: ffn(depth(x, top, bottom)), x, outputs, max(outputs, ffn.widest))


class GateBlock(_DepthConvBlock):
    """DepthConv(inputs, outputs), then GateFFN(outputs)."""
    ffn = GateFFN


class SumBlock(_DepthConvBlock):
    """DepthConv(inputs, outputs), then SumFFN(outputs)."""
    ffn = SumFFN


class PlainBlock(_DepthConvBlock):
    """DepthConv(inputs, outputs), then PlainFFN(outputs)."""
    ffn = PlainFFN


class Down(nn.Module):
    """Residual block that halves height and width."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = conv(inputs, outputs, stride=2)
        self.act1 = leaky(0.01)
        self.conv2 = conv(outputs, outputs)
        self.act2 = leaky(0.1)
        self.downsample = conv(inputs, outputs, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x).add_(self.act2(self.conv2(self.act1(self.conv1(x)))))


class Up(nn.Module):
    """Residual block that doubles height and width."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.subpel_conv = subpel(inputs, outputs, 1)
        self.act1 = leaky(0.01)
        self.conv = conv(outputs, outputs)
        self.act2 = leaky(0.1)
        self.upsample = subpel(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(x).add_(self.act2(self.conv(self.act1(self.subpel_conv(x)))))


class Res(nn.Module):
    """Pre-activated residual block of two 3x3 convolutions."""

    def __init__(self, channels: int):
        super().__init__()
        self.act = leaky(0.01)
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # The first activation is not in place, because x itself is needed again.
        return self.conv2(self.act(self.conv1(F.leaky_relu(x, self.act.negative_slope)))).add_(x)
