"""Residual blocks of DCVC-HEM (Li et al., ACM MM 2022), with the attribute names of its released checkpoints.

Sums are in place only on the output of a convolution; an activation in place needs its output again for its gradient.
Shapes: B C H W in; the same resolution out.
"""
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import conv, leaky


class ActivatedRes(nn.Module):
    """Residual block of two 3x3 convolutions with an activation after each, the second one too."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)
        self.act = leaky(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.conv2(self.act(self.conv1(x))))


class BottleneckRes(nn.Module):
    """Residual block of two 3x3 convolutions through half the channels; activations before, between and after."""

    def __init__(self, channels: int):
        super().__init__()
        self.act = leaky(0.1)
        self.conv1 = conv(channels, channels // 2)
        self.conv2 = conv(channels // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        # The first activation is not in place, because x itself is needed again.
        hidden = self.act(self.conv1(F.leaky_relu(x, self.act.negative_slope)))
        return x + self.act(self.conv2(hidden))


class ReluRes(nn.Module):
    """Pre-activated residual block of two 3x3 convolutions with ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.conv1 = conv(channels, channels)
        self.conv2 = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act(self.conv1(F.relu(x)))).add_(x)


class SqueezeExcite(nn.Module):
    """A gain in (0, 1) per channel from the means of all channels (Hu et al., CVPR 2018).

    The mean is taken over the whole padded frame, so every output depends on every position.
    """
    REDUCTION = 16

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // self.REDUCTION, 1)
        self.fc = nn.Sequential(nn.Linear(channels, hidden, bias=False), nn.ReLU(inplace=True),
                                nn.Linear(hidden, channels, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[..., None, None]


class SqueezeExciteBlock(nn.Module):
    """Two 3x3 convolutions and squeeze-and-excitation, added to a 1x1 convolution of the input."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Sequential(conv(inputs, outputs), leaky(0.01), conv(outputs, outputs), SqueezeExcite(outputs))
        self.up_dim = conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up_dim(x).add_(self.conv(x))
