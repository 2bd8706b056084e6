"""Convolutions over two time slots, computed in two dimensions on bands of rows.

The two slots stand side by side as stacked channels, B 2C H W, those of slot 0 first: joint features in this form are
the concatenation of what they join. A 3x3x3 kernel with slices W0, W1, W2 along time, and zeros beyond the slots,
makes of slots x0, x1

    y0 = W1 * x0 + W2 * x1        y1 = W0 * x0 + W1 * x1

so a 3x3 convolution over the stacked channels does the same, without the third of the products that meet zeros.
Weights keep their three-dimensional shapes.
"""
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.float64 import conv2d


class Rows(NamedTuple):
    """Rows of joint features, with their neighbours above and below, which a 3x3 kernel reaches.

    Attributes:
        values: B 2C (rows + 2 - missing) W.
        missing: neighbours that lie outside the frame, above and below, 0 or 1 each.
    """
    values: Tensor
    missing: tuple[int, int]

    def map(self, network: Callable[[Tensor], Tensor]) -> "Rows":
        """With values that a network made, position by position."""
        return Rows(network(self.values), self.missing)


def rows_of(x: Tensor, top: int, bottom: int) -> Rows:
    """Rows top..bottom - 1 of x with what they need."""
    first, last = max(top - 1, 0), min(bottom + 1, x.shape[2])
    return Rows(x[:, :, first:last], (first - top + 1, bottom + 1 - last))


class SlotConv(nn.Conv3d):
    """Holds the weights of a 3D convolution of kernel 1 or 3 over two slots; `planar` computes with them.

    Args:
        groups: as in Conv3d: 1, one per part of the outputs that is computed on its own, or one per output.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1, bias: bool = False):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)

    def pointwise(self, part: int = 0, parts: int = 1) -> Callable[[Tensor], Tensor]:
        """Of kernel 1: what makes one of so many equal parts of the outputs, B 2 inputs H W -> B 2 outputs/parts H W.
        """
        weight, bias = self.weight.squeeze(-1).chunk(parts)[part], self._bias(part, parts)

        def network(x: Tensor) -> Tensor:
            b, _, h, w = x.shape
            return conv2d(x.reshape(2 * b, -1, h, w), weight, bias).reshape(b, -1, h, w)
        return network

    def spatial(self, part: int = 0, parts: int = 1) -> Callable[[Rows], Tensor]:
        """Of kernel 3: what makes one of so many equal parts of the outputs from as many parts of the inputs."""
        before, own, after = self.weight.chunk(parts)[part].unbind(2)
        bias = self._bias(part, parts)
        bias = None if bias is None else bias.repeat(2)
        groups = self.groups // parts
        if groups == 1:
            stacked = torch.cat((torch.cat((own, after), 1), torch.cat((before, own), 1)))
            return lambda rows: _over_rows(rows, stacked, bias)
        own, across = own.repeat(2, 1, 1, 1), torch.cat((before, after))

        def network(rows: Rows) -> Tensor:
            crossing = _over_rows(rows, across, None, 2 * groups)          # of slot 0 for slot 1, and the other way
            return _over_rows(rows, own, bias, 2 * groups) + crossing.roll(crossing.shape[1] // 2, 1)
        return network

    def _bias(self, part: int, parts: int) -> Tensor | None:
        return None if self.bias is None else self.bias.chunk(parts)[part]


def _over_rows(rows: Rows, weight: Tensor, bias: Tensor | None, groups: int = 1) -> Tensor:
    """A 3x3 convolution; what is outside the frame counts as zeros."""
    if rows.missing == (1, 1):
        return conv2d(rows.values, weight, bias, padding=(1, 1), groups=groups)
    values = F.pad(rows.values, (0, 0, *rows.missing)) if any(rows.missing) else rows.values
    return conv2d(values, weight, bias, padding=(0, 1), groups=groups)


def separate_branches(first: SlotConv, second: SlotConv, count: int) -> list[Callable[[Rows], Tensor]]:
    """A 1x1x1 convolution and a 3x3x3 one that keeps branches apart, as so many networks, one per branch.

    One at a time, they need a fraction of the memory of all together.
    """
    def branch(n: int) -> Callable[[Rows], Tensor]:
        pointwise, spatial = first.pointwise(n, count), second.spatial(n, count)
        return lambda rows: spatial(rows.map(pointwise))
    return [branch(n) for n in range(count)]
