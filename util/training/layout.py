"""Channels-last activations, for training on CPUs: pointwise and depthwise convolutions of few channels gain most."""
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.formats import store_channels_last


class _Subsampling(nn.Conv2d):
    """A pointwise convolution with a stride, as one without on the positions that it reads.

    It is the same sum. oneDNN's gradient of the strided form writes out of bounds when the input is channels-last and
    has two channels (PyTorch 2.15).
    """

    def forward(self, x: Tensor) -> Tensor:
        down, across = self.stride
        return F.conv2d(x[..., ::down, ::across], self.weight, self.bias)


def use_channels_last(network: nn.Module) -> None:
    """Store weights, and with them activations, channels-last. Values stay; sums may be taken in another order."""
    store_channels_last(network)
    for module in network.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.stride != (1, 1):
            module.__class__ = _Subsampling
