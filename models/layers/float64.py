"""Fast float64 convolutions on CPUs, where PyTorch has no good ones.

`use_fast_float64` changes the class of a model's convolutions, so names, weights and everything else stay; `conv2d` is
for networks that compute with weights of other shapes. Results differ from PyTorch's in the last bits only. Shapes:
B C H W.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.narrow import PackedConv2d

BAND = 1 << 17
"""Input values that are multiplied at a time: 1 MB."""

Pair = tuple[int, int]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = (1, 1), padding: Pair = (0, 0),
           groups: int = 1) -> Tensor:
    """torch.nn.functional.conv2d that takes float64 on CPUs apart into matrix products, or shifted multiply-adds where
    each output has a group of its own. With gradients to record it is PyTorch's own."""
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if x.dtype != torch.float64 or x.device.type != "cpu" or learns or groups not in (1, len(weight)):
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)
    (height, width), (down, across) = weight.shape[2:], stride
    size = [(side + 2 * pad - kernel) // step + 1
            for side, pad, kernel, step in zip(x.shape[2:], padding, weight.shape[2:], stride)]
    bias = x.new_zeros(len(weight)) if bias is None else bias
    out = bias.view(1, -1, 1, 1).repeat(len(x), 1, *size)
    x = F.pad(x, (padding[1],) * 2 + (padding[0],) * 2) if any(padding) else x
    shifts = [(weight[:, :, i, j], x[..., i:i + down * size[0]:down, j:j + across * size[1]:across])
              for i in range(height) for j in range(width)]
    _dense(out, shifts) if groups == 1 else _depthwise(out, shifts)
    return out


Shifts = list[tuple[Tensor, Tensor]]
"""For each kernel position its weights, and what of the padded input they multiply."""


def _dense(out: Tensor, shifts: Shifts) -> None:
    """For bands of rows that fit the cache, one matrix product per kernel position."""
    width, inputs = out.shape[-1], shifts[0][1].shape[1]
    rows = max(1, BAND // (inputs * width))
    terms = [(weight.contiguous(), part) for weight, part in shifts]
    for n, total in enumerate(out.flatten(2)):
        for top in range(0, out.shape[-2], rows):
            band = total[:, top * width:(top + rows) * width]
            for weight, part in terms:
                band.addmm_(weight, part[n, :, top:top + rows].reshape(inputs, -1))


def _depthwise(out: Tensor, shifts: Shifts) -> None:
    for weight, part in shifts:
        per_group = weight.shape[1]
        for n in range(per_group):
            out.addcmul_(part[:, n::per_group], weight[:, n].view(1, -1, 1, 1))


class FastConv2d(nn.Conv2d):
    """Conv2d with the fast float64 path."""

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros":
            return super().forward(x)
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)


def use_fast_float64(model: nn.Module) -> None:
    """Give every plain Conv2d of the model the fast float64 path."""
    for module in model.modules():
        if (type(module) in (nn.Conv2d, PackedConv2d) and module.dilation == (1, 1)
                and not isinstance(module.padding, str)):
            module.__class__ = FastConv2d
