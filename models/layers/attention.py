"""Channel transform module (CTM): attention between channels instead of positions (HyTIP supplement)."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import conv


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position."""

    def forward(self, x: Tensor) -> Tensor:
        return self.normalised(x, self.weight, self.bias)

    def normalised(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """With other weights than its own."""
        return F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, weight, bias, self.eps).permute(0, 3, 1, 2)


class _WrappedNorm(nn.Module):
    """A norm under the name that it has in the released models."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = ChannelNorm(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class _ChannelAttention(nn.Module):
    """softmax(q k^T * temperature) v, with q and k of shape (channels per head) x positions.

    Heads are contiguous blocks of channels; q and k are L2-normalised over positions. q, k and v have `inner` channels.
    """

    def __init__(self, channels: int, heads: int, bias: bool, inner: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv(channels, 3 * inner, 1, bias=bias)
        self.qkv_dwconv = conv(3 * inner, 3 * inner, groups=3 * inner, bias=bias)
        self.project_out = conv(inner, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = self.qkv_dwconv(self.qkv(x)).reshape(b, 3, self.heads, -1, h * w).unbind(1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1)
        return self.project_out((attention @ v).reshape(b, -1, h, w))


class _Mlp(nn.Module):
    def __init__(self, channels: int, bias: bool, hidden: int):
        super().__init__()
        self.project_in = conv(channels, hidden, 1, bias=bias)
        self.act = nn.GELU()
        self.project_out = conv(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project_out(self.act(self.project_in(x)))


class _TransformBlock(nn.Module):
    def __init__(self, channels: int, heads: int, bias: bool, inner: int, hidden: int):
        super().__init__()
        self.norm1 = _WrappedNorm(channels)
        self.attn = _ChannelAttention(channels, heads, bias, inner)
        self.norm2 = _WrappedNorm(channels)
        self.mlp = _Mlp(channels, bias, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _TransformLayer(nn.Module):
    def __init__(self, channels: int, depth: int, heads: int, bias: bool, inner: int, hidden: int):
        super().__init__()
        self.blocks = nn.ModuleList(_TransformBlock(channels, heads, bias, inner, hidden) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class ChannelTransform(nn.Module):
    """x + blocks(x), with `depth` blocks of channel attention and a pointwise MLP. B C H W in and out.

    Args:
        bias: biases in the attention and the MLP (`CA_bias`); the released models have none.
        inner: channels of q, k and v, by default as many as `channels`; a multiple of `heads`.
        hidden: channels inside the MLP, by default four times `channels`.
    """

    def __init__(self, channels: int, depth: int, heads: int, bias: bool, inner: int | None = None,
                 hidden: int | None = None):
        super().__init__()
        self.restor_layer = _TransformLayer(channels, depth, heads, bias, inner or channels, hidden or 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.restor_layer(x)
