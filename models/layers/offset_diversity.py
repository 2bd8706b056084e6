"""Offset diversity: a feature warped by many refined flows instead of one (DCVC-MIP, CVPR 2023; DCVC-DC, CVPR 2023).

    warped feature, guidance -> down, inner -> h at 1/2 -> offset -> residual offsets and masks
    each group of channels, warped by flow + each of its offsets, times its mask -> fusion -> aligned feature

With G groups and N offsets there are G N pairs; pair g N + n is offset n of group g. Shapes: features B C H W, flows
B 2 H W in pixels, channel 0 = x; H and W even.
"""
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import conv, leaky
from models.layers.functional import warp

CHUNK_BYTES = 32 << 20
"""Size of the warped values that exist at a time. All of them would be a gigabyte at 1080p; and tensors of this size
use memory again that larger ones ask of the system each time, which takes a third longer."""


class Aligned(NamedTuple):
    """Attributes:
        feature: B C H W.
        hidden: what offsets and masks are predicted from, B C H/2 W/2.
        raw: the prediction, B 3 G N H/2 W/2: x and y of each pair, then the masks, before tanh and sigmoid.
        mean_offset: of all residual offsets in pixels, B 2 H/2 W/2.
        mean_mask: of all masks, B 1 H/2 W/2 in (0, 1).
    """
    feature: Tensor
    hidden: Tensor
    raw: Tensor
    mean_offset: Tensor
    mean_mask: Tensor


class GroupConv(nn.Conv2d):
    """A 1x1 convolution in groups that can be applied to some of them."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__(inputs, outputs, 1, groups=groups)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Groups first, first + 1, ..., as many as x has channels for."""
        inputs, outputs = self.in_channels // self.groups, self.out_channels // self.groups
        count = x.shape[1] // inputs
        own = slice(first * outputs, (first + count) * outputs)
        return F.conv2d(x, self.weight[own], self.bias[own], groups=count)


class OffsetDiversity(nn.Module):
    """Predicts residual offsets and masks, and aligns a feature by them.

    Args:
        channels: C, a multiple of `groups`.
        guidance: channels of what helps to predict the offsets; 0 for nothing.
        groups: of channels that are warped together.
        offsets: per group.
        magnitude: bound of the residual offsets, in pixels.
    """

    def __init__(self, channels: int, guidance: int, groups: int, offsets: int, magnitude: float):
        super().__init__()
        self.groups, self.offsets, self.magnitude = groups, offsets, magnitude
        self.act = leaky(0.1)
        self.down = conv(channels, channels, stride=2)
        self.inner = conv(channels + guidance, channels)
        self.offset = conv(channels, 3 * groups * offsets)
        self.fusion = GroupConv(channels * offsets, channels, groups)

    def forward(self, x: Tensor, flow: Tensor, guidance: Tensor | None = None) -> Aligned:
        """Align x to where flow and residual offsets point.

        Args:
            guidance: B guidance H/2 W/2, or None.
        """
        hidden = self.act(self.down(warp(x, flow)))
        hidden = self.act(self.inner(hidden if guidance is None else torch.cat((hidden, guidance), 1)))
        raw = self.offset(hidden)
        pairs = self.groups * self.offsets
        mean_offset = self.residual_offsets(raw[:, :2 * pairs]).unflatten(1, (pairs, 2)).mean(1)
        mean_mask = raw[:, 2 * pairs:].sigmoid().mean(1, keepdim=True)
        return Aligned(self._align(x, flow, raw), hidden, raw, mean_offset, mean_mask)

    def _align(self, x: Tensor, flow: Tensor, raw: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return torch.cat([part for _, part in self._parts(x, flow, raw)], 1)
        aligned = torch.empty_like(x)
        for first, part in self._parts(x, flow, raw):
            aligned[:, first:first + part.shape[1]] = part
        return aligned

    def _parts(self, x: Tensor, flow: Tensor, raw: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The aligned feature in bundles of groups, each with its first channel."""
        batch, channels, height, width = x.shape
        depth, pairs = channels // self.groups, self.groups * self.offsets
        of_group = 4 * batch * self.offsets * depth * height * width
        bundle = min(max(1, CHUNK_BYTES // of_group), self.groups)
        for group in range(0, self.groups, bundle):
            count = min(bundle, self.groups - group)
            first, last = group * self.offsets, (group + count) * self.offsets
            offsets = self.residual_offsets(_double(raw[:, 2 * first:2 * last]))
            flows = flow.unsqueeze(1) + offsets.view(batch, last - first, 2, height, width)
            source = x[:, group * depth:(group + count) * depth].unflatten(1, (count, 1, depth))
            source = source.expand(-1, -1, self.offsets, -1, -1, -1).reshape(-1, depth, height, width)
            moved = warp(source, flows.flatten(0, 1)).view(batch, last - first, depth, height, width)
            masks = _double(raw[:, 2 * pairs + first:2 * pairs + last]).sigmoid_().unsqueeze(2)
            masked = moved * masks if torch.is_grad_enabled() else moved.mul_(masks)
            yield group * depth, self.fusion(masked.flatten(1, 2), group)

    def residual_offsets(self, raw: Tensor) -> Tensor:
        """Pixels, x and y of each pair, from the first channels of the prediction."""
        return self.magnitude * raw.tanh()

    @torch.no_grad()
    def start_as_warp(self) -> None:
        """Weights for which the aligned feature is warp(x, flow): no offsets, masks of 1/2, two of which add up."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        nn.init.zeros_(self.fusion.bias)
        depth = self.fusion.out_channels // self.groups
        self.fusion.weight.copy_(torch.eye(depth).repeat(self.groups, self.offsets)[..., None, None]
                                 * (2 / self.offsets))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
