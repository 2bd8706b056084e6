"""Fast float64 convolutions on CPUs, where PyTorch has no good ones.

`use_fast_float64` changes the class of a model's convolutions, so names, weights and everything else stay. Results
differ from PyTorch's in the last bits only. Shapes: B C H W.
"""
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BAND = 1 << 17
"""Input values that are multiplied at a time: 1 MB."""


class FastConv2d(nn.Conv2d):
    """Conv2d that takes float64 on CPUs apart into matrix products, or shifted multiply-adds when depthwise."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float64 or x.device.type != "cpu" or self.padding_mode != "zeros":
            return super().forward(x)
        if self.groups == 1:
            return self._dense(x)
        if self.groups == self.in_channels == self.out_channels:
            return self._depthwise(x)
        return super().forward(x)

    def _dense(self, x: Tensor) -> Tensor:
        """For bands of rows that fit the cache, one matrix product per kernel position."""
        out = self._start(x)
        width = out.shape[-1]
        rows = max(1, BAND // (self.in_channels * width))
        terms = [(self.weight[:, :, i, j].contiguous(), part) for i, j, part in self._shifts(x)]
        for n, total in enumerate(out.flatten(2)):
            for top in range(0, out.shape[-2], rows):
                band = total[:, top * width:(top + rows) * width]
                for weight, part in terms:
                    band.addmm_(weight, part[n, :, top:top + rows].reshape(self.in_channels, -1))
        return out

    def _depthwise(self, x: Tensor) -> Tensor:
        out = self._start(x)
        for i, j, part in self._shifts(x):
            out.addcmul_(part, self.weight[:, 0, i, j].view(1, -1, 1, 1))
        return out

    def _output_size(self, x: Tensor) -> list[int]:
        return [(side + 2 * pad - kernel) // stride + 1 for side, pad, kernel, stride
                in zip(x.shape[-2:], self.padding, self.kernel_size, self.stride)]

    def _start(self, x: Tensor) -> Tensor:
        """The output before anything is added to the bias."""
        bias = x.new_zeros(self.out_channels) if self.bias is None else self.bias
        return bias.view(1, -1, 1, 1).repeat(x.shape[0], 1, *self._output_size(x))

    def _shifts(self, x: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """For each kernel position: where in the kernel, and what of the padded input it multiplies."""
        (height, width), (down, across) = self._output_size(x), self.stride
        x = F.pad(x, (self.padding[1],) * 2 + (self.padding[0],) * 2) if any(self.padding) else x
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                yield i, j, x[..., i:i + down * height:down, j:j + across * width:across]


def use_fast_float64(model: nn.Module) -> None:
    """Give every plain Conv2d of the model the fast float64 path."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.dilation == (1, 1) and not isinstance(module.padding, str):
            module.__class__ = FastConv2d

