"""Attention inside windows, and the residual block of two such layers (Swin Transformer, ICCV 2021; SwinIR, 2021).

Shapes: features B C H W; inside layers positions come before channels, B H W C.
"""
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import conv
from models.layers.functional import crop, memory_layout, pad_to_multiple

CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
"""Size of the widest tensor of a band of windows: on CPUs it should stay near the cache."""

MASKED = -100.0
"""Added to the attention between positions that the roll has brought together."""


class WindowLayer(nn.Module):
    """x + attention(norm1(x)), then x + MLP(norm2(x)); B H W C, H and W multiples of the window.

    Args:
        channels: a multiple of `heads`.
        window: side of the windows that attention stays in.
        shift: windows are moved by so many positions down and right; between 0 and window - 1.
        ratio: hidden channels of the MLP as a multiple of `channels`.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int, ratio: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1 = nn.LayerNorm(channels, eps=1e-5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-5)
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.fc2 = nn.Linear(ratio * channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Draw the position bias anew; linear layers are as PyTorch makes them."""
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        # Positions outside a row of windows have no part in it, so that the layer works on a few rows at a time.
        height, rows = x.shape[1], self._rows_at_a_time(x)
        x = torch.cat([self._rows(x[:, top:top + rows], top, height) for top in range(0, height, rows)], 1)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

    def _rows_at_a_time(self, x: Tensor) -> int:
        """A multiple of the window; all of them where gradients are recorded and everything is kept anyway."""
        if torch.is_grad_enabled():
            return x.shape[1]
        widest = max(self.qkv.out_features, self.fc1.out_features, self.heads * self.window ** 2)
        strip = x.shape[0] * x.shape[2] * self.window * widest * x.element_size()
        return self.window * max(1, CHUNK_BYTES.get(x.device.type, CHUNK_BYTES["cuda"]) // strip)

    def _rows(self, x: Tensor, top: int, height: int) -> Tensor:
        """The layer on some rows of the rolled positions, the first of which is `top` of `height`."""
        x = x + self._attention(self.norm1(x), top, height)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def _attention(self, x: Tensor, top: int, height: int) -> Tensor:
        batch, rows, width, channels = x.shape
        w = self.window
        grid = (batch, rows // w, width // w)
        x = x.view(batch, grid[1], w, grid[2], w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[_relative_positions(w, x.device)].permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            apart = _apart(w, self.shift, height, width, x.device)[top // w:top // w + grid[1]]
            bias = torch.where(apart.unsqueeze(2), bias + MASKED, bias).flatten(0, 1)   # windows, heads, tokens twice
            bias = bias.expand(batch, -1, -1, -1, -1).flatten(0, 1)
        x = attend(q, k, v, bias).transpose(1, 2).reshape(-1, w * w, channels)
        x = self.proj(x).view(*grid, w, w, channels).transpose(2, 3)
        return x.reshape(batch, rows, width, channels)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(channels) + bias) v, B heads tokens channels each.

    In float64, that of portable streams, the sums are written out: a fused kernel differs from machine to machine.
    """
    if q.dtype != torch.float64:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v


@lru_cache(maxsize=8)
def _relative_positions(window: int, device: torch.device) -> Tensor:
    """Row of the bias table for each query and key of a window, in raster order."""
    with torch.inference_mode(False):                   # whatever mode asks first, training can use the tensor too
        y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
        down, right = y[:, None] - y + window - 1, x[:, None] - x + window - 1
        return (down * (2 * window - 1) + right).to(device)


@lru_cache(maxsize=32)
def _apart(window: int, shift: int, height: int, width: int, device: torch.device) -> Tensor:
    """Whether two tokens of a window were neighbours only by the roll: rows, columns of windows, tokens twice."""
    def bands(side: int) -> Tensor:
        at = torch.arange(side)
        return (at >= side - window).long() + (at >= side - shift).long()

    with torch.inference_mode(False):
        band = 3 * bands(height)[:, None] + bands(width)
        tokens = band.view(height // window, window, width // window, window).transpose(1, 2).flatten(2)
        return (tokens.unsqueeze(-1) != tokens.unsqueeze(-2)).to(device)


class ResidualWindowBlock(nn.Module):
    """x + conv(layers(x)): two layers, the second with shifted windows (RSTB). B C H W in and out.

    Args:
        channels, heads, window, ratio: as in `WindowLayer`; windows are even.
        kernel: of the closing convolution; 0 for none.
    """

    def __init__(self, channels: int, heads: int, window: int, ratio: int, kernel: int):
        super().__init__()
        self.window = window
        self.layers = nn.ModuleList(WindowLayer(channels, heads, window, shift, ratio) for shift in (0, window // 2))
        self.conv = conv(channels, channels, kernel) if kernel else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inside = pad_to_multiple(x, self.window).permute(0, 2, 3, 1)
        for layer in self.layers:
            inside = layer(inside)
        inside = crop(inside.permute(0, 3, 1, 2), tuple(x.shape[-2:]))
        return x + self.conv(inside.contiguous(memory_format=memory_layout(x)))
