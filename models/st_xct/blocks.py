"""Spatio-temporal cross-covariance transformer (Chen et al., ACM MM 2023, supplement; XCiT, Restormer).

    two features -> stacked as two slots of a time axis -> blocks -> B 2C H W, where the concatenation stood
    block:  x + attention(norm1(x)), then x + gate(norm2(x))

Attention is between channels, over all positions of both slots. Shapes: joint features B 2C H W, slot 0 first
(models/st_xct/slots.py). Where gradients are not recorded, blocks work on bands of rows in two passes: the first sums
up products of queries and keys, the second applies the attention and what follows. So little more than a block's input
and output is ever in memory; results are the same but for the order of sums.
"""
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.attention import ChannelNorm
from models.layers.bands import bands, in_bands
from models.layers.formats import wide_arithmetic
from models.layers.functional import memory_layout
from models.st_xct.config import LargePlace, XctParams
from models.st_xct.slots import Rows, SlotConv, rows_of, separate_branches

LEAST_NORM = 1e-12
"""Bound of what queries and keys are divided by, as in Restormer."""


class SlotNorm(ChannelNorm):
    """Layer normalisation over the channels of each position of each slot."""

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        with wide_arithmetic(x, self.weight, self.bias) as (wide, weight, bias):
            return self.normalised(wide.reshape(2 * b, -1, h, w), weight, bias).reshape(x.shape).to(x.dtype)


class CrossCovariance(nn.Module):
    """softmax(q k^T * temperature) v, with q and k of (channels per head) x (positions of both slots).

    Heads are contiguous blocks of channels; q and k are L2-normalised over positions. Normalised rows are never made:
    their products are those of the raw ones, divided by the norms.

    Args:
        groups: of the 3x3x3 convolution: 3, or one per channel of q, k and v.
    """

    def __init__(self, channels: int, heads: int, groups: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = SlotConv(channels, 3 * channels, 1, bias=bias)
        self.qkv_conv = SlotConv(3 * channels, 3 * channels, 3, groups, bias)
        self.project_out = SlotConv(channels, channels, 1, bias=bias)
        self.softmax = nn.Softmax(-1)                                      # a module, so that it can be watched

    def weights(self, parts: Iterable[Rows]) -> Tensor:
        """How much each channel (row) takes of each (column), B heads c c, in float32 at least.

        Args:
            parts: all rows of the frame.
        """
        query, key, _ = separate_branches(self.qkv, self.qkv_conv, 3)
        sums = None
        for rows in parts:
            with wide_arithmetic(self._by_head(query(rows)), self._by_head(key(rows))) as (q, k):
                more = (q @ k.mT).sum(1), q.square().sum((1, -1)), k.square().sum((1, -1))
                sums = more if sums is None else tuple(a + b for a, b in zip(sums, more))
        with wide_arithmetic(self.temperature, *sums) as (temperature, products, *squares):
            q_norm, k_norm = (x.clamp(min=LEAST_NORM ** 2).sqrt() for x in squares)
            return self.softmax(products / (q_norm[..., None] * k_norm[..., None, :]) * temperature)

    def applied(self, weights: Tensor) -> Callable[[Rows], Tensor]:
        """The second pass: rows of the input -> those of the output."""
        value, project = separate_branches(self.qkv, self.qkv_conv, 3)[2], self.project_out.pointwise()

        def network(rows: Rows) -> Tensor:
            v = value(rows)
            return project((weights[:, None].to(v.dtype) @ self._by_head(v)).reshape(v.shape))
        return network

    def _by_head(self, x: Tensor) -> Tensor:
        """B 2C h w -> B 2 heads c h*w."""
        return x.reshape(x.shape[0], 2, self.heads, x.shape[1] // (2 * self.heads), -1)


class GatedFeedForward(nn.Module):
    """GELU of one branch gates the other (the supplement's 3FFG); hidden channels are `factor` times as many.

    Args:
        groups: of the 3x3x3 convolution: 2, or one per output of both branches.
    """

    def __init__(self, channels: int, factor: int, groups: int, bias: bool):
        super().__init__()
        self.branch_in = SlotConv(channels, 2 * factor * channels, 1, bias=bias)
        self.branch_conv = SlotConv(2 * factor * channels, 2 * channels, 3, groups, bias)
        self.project_out = SlotConv(channels, channels, 1, bias=bias)

    def network(self) -> Callable[[Rows], Tensor]:
        """Rows of the input -> those of the output."""
        gate, value = separate_branches(self.branch_in, self.branch_conv, 2)
        project = self.project_out.pointwise()
        return lambda rows: project(F.gelu(gate(rows)) * value(rows))


class TransformerBlock(nn.Module):
    """Attention and gated feed-forward network, each after a norm and with a skip connection. B 2C H W in and out.

    A new block is the identity: training starts at what there is without it.
    """

    def __init__(self, channels: int, place: LargePlace, depthwise: bool, bias: bool):
        super().__init__()
        self.norm1 = SlotNorm(channels, eps=1e-5)
        self.attn = CrossCovariance(channels, place.heads, 3 * channels if depthwise else 3, bias)
        self.norm2 = SlotNorm(channels, eps=1e-5)
        self.ffg = GatedFeedForward(channels, place.FFG_factor, 2 * channels if depthwise else 2, bias)
        self.widest = 2 * place.FFG_factor * channels
        for last in (self.attn.project_out, self.ffg.project_out):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        # Sums must not depend on what else is in the batch, so neither may the bands.
        weights = self.attn.weights(rows_of(x, *band).map(self.norm1) for band in bands(x[:1], channels))
        x = self._added(x, self.norm1, self.attn.applied(weights), channels)
        return self._added(x, self.norm2, self.ffg.network(), self.widest)

    @staticmethod
    def _added(x: Tensor, norm: nn.Module, network: Callable[[Rows], Tensor], widest: int) -> Tensor:
        def rows(top: int, bottom: int) -> Tensor:
            return x[:, :, top:bottom] + network(rows_of(x, top, bottom).map(norm))
        return in_bands(rows, x, x.shape[1], widest)


class Fuse(nn.ModuleList):
    """Joins two features of one resolution: B C H W twice -> B 2C H W. Without blocks it concatenates.

    Args:
        place: its blocks; None for no blocks.
    """

    def __init__(self, channels: int, place: LargePlace | None, params: XctParams):
        count = 0 if place is None else place.blocks
        super().__init__(TransformerBlock(channels, place, params.conv3d == "depthwise", params.bias)
                         for _ in range(count))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = torch.cat((first, second), 1)
        if not len(self):
            return x
        layout, x = memory_layout(x), x.contiguous()                       # slots are apart in this layout only
        keep = not (self.training and torch.is_grad_enabled())
        for block in self:
            # What lies between its layers is forgotten in training, and computed again for gradients.
            x = block(x) if keep else checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
        return x.contiguous(memory_format=layout)
