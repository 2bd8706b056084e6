"""Blocks against independent formulas, and properties that hold for any input."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import nn

from models.entropy.coder import Estimator
from models.entropy.distributions import Gaussian
from models.latent import put, take
from models.layers.attention import ChannelTransform
from models.layers.blocks import DepthConv, Down, GateFFN, PlainBlock, PlainFFN, Res, SumFFN, Up
from models.layers.functional import at_least, crop, halve_flow, pad_to_multiple, warp
from models.spatial_prior import INTER_SCHEDULE, INTRA_SCHEDULE, passes

sides = st.integers(1, 9)


@given(h=sides, w=sides, seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_warp_is_bilinear_sampling_with_a_repeated_border(h, w, seed):
    rng = np.random.default_rng(seed)
    x, flow = rng.random((2, h, w)), rng.uniform(-4, 4, (2, h, w))
    if w == 1:
        flow[0] = 0                                                # a side of one pixel ignores its displacement
    if h == 1:
        flow[1] = 0
    expected = np.empty_like(x)
    for row in range(h):
        for column in range(w):
            px = min(max(column + flow[0, row, column], 0), w - 1)
            py = min(max(row + flow[1, row, column], 0), h - 1)
            x0, y0 = min(int(px), max(w - 2, 0)), min(int(py), max(h - 2, 0))
            x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
            ax, ay = px - x0, py - y0
            expected[:, row, column] = ((1 - ay) * ((1 - ax) * x[:, y0, x0] + ax * x[:, y0, x1])
                                        + ay * ((1 - ax) * x[:, y1, x0] + ax * x[:, y1, x1]))
    actual = warp(torch.from_numpy(x)[None], torch.from_numpy(flow)[None])
    np.testing.assert_allclose(actual[0].numpy(), expected, atol=1e-9)


def test_warp_ignores_the_displacement_of_a_side_of_one_pixel():
    x = torch.rand(1, 2, 1, 5)
    flow = torch.zeros(1, 2, 1, 5)
    flow[:, 1] = 3.7
    assert torch.allclose(warp(x, flow), x, atol=1e-6)


def test_halve_flow_averages_and_rescales():
    flow = torch.rand(1, 2, 4, 6)
    expected = flow.reshape(1, 2, 2, 2, 3, 2).mean((3, 5)) / 2
    assert torch.allclose(halve_flow(flow), expected, atol=1e-6)


@given(h=sides, w=sides, multiple=st.integers(1, 16))
def test_padding_repeats_the_border_and_cropping_undoes_it(h, w, multiple):
    x = torch.arange(h * w, dtype=torch.float32).view(1, 1, h, w)
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[-2] % multiple == 0 and padded.shape[-1] % multiple == 0
    assert padded.shape[-2] < h + multiple and padded.shape[-1] < w + multiple
    expected = np.pad(x[0, 0].numpy(), ((0, padded.shape[-2] - h), (0, padded.shape[-1] - w)), mode="edge")
    assert np.array_equal(padded[0, 0].numpy(), expected)
    assert torch.equal(crop(padded, (h, w)), x)


def test_no_gradient_passes_a_lower_bound():
    x = torch.tensor([0.2, 0.2, 0.9], requires_grad=True)
    y = at_least(x, 0.5)
    assert torch.equal(y.detach(), torch.tensor([0.5, 0.5, 0.9]))
    y.backward(torch.tensor([1.0, -1.0, 1.0]))
    assert torch.equal(x.grad, torch.tensor([0.0, 0.0, 1.0]))


def leaky(x: torch.Tensor, slope: float) -> torch.Tensor:
    return torch.maximum(x, torch.zeros_like(x)) + slope * torch.minimum(x, torch.zeros_like(x))


def pointwise(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias.view(-1, 1, 1)


@torch.no_grad()
def test_feed_forward_blocks():
    x = torch.randn(2, 6, 3, 5)
    gate, total, plain = GateFFN(6), SumFFN(6), PlainFFN(6)
    a, b = pointwise(gate.conv, x).chunk(2, 1)
    assert torch.allclose(gate(x), x + pointwise(gate.conv_out, a * leaky(b, 0.1)), atol=1e-6)
    a, b = pointwise(total.conv, x).chunk(2, 1)
    assert torch.allclose(total(x), x + pointwise(total.conv_out, leaky(a, 0.1) + leaky(b, 0.01)), atol=1e-6)
    hidden = leaky(pointwise(plain.conv[0], x), 0.1)
    assert torch.allclose(plain(x), x + leaky(pointwise(plain.conv[2], hidden), 0.1), atol=1e-6)


@pytest.mark.parametrize("channels, hidden", [(64, 256), (256, 1024), (384, 1024), (600, 1200)])
def test_width_of_the_plain_feed_forward_block(channels, hidden):
    assert PlainFFN(channels).conv[0].out_channels == hidden


@torch.no_grad()
def test_depth_conv_with_and_without_adaptor():
    for outputs in (6, 4):
        block, x = DepthConv(6, outputs), torch.randn(1, 6, 4, 4)
        inner = leaky(pointwise(block.conv1[0], x), 0.01)
        padded = np.pad(inner[0].numpy(), ((0, 0), (1, 1), (1, 1)))
        kernel = block.depth_conv.weight[:, 0].numpy()
        depth = sum(kernel[:, i, j, None, None] * padded[:, i:i + 4, j:j + 4] for i in range(3) for j in range(3))
        depth = torch.from_numpy(depth)[None] + block.depth_conv.bias.view(-1, 1, 1)
        skip = x if block.adaptor is None else pointwise(block.adaptor, x)
        assert (block.adaptor is None) == (outputs == 6)
        assert torch.allclose(block(x), pointwise(block.conv2, depth) + skip, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("outputs", [3, 6, 9])
def test_a_hidden_width_in_place_of_wide_layers(outputs):
    """Both halves of a block; the skip hands the last inputs on, or nothing where they are too few."""
    block, x = PlainBlock(6, outputs, hidden=2), torch.randn(1, 6, 4, 4)
    depth, ffn = block.block
    assert depth.adaptor is None and {layer.out_channels for layer in (depth.conv1[0], depth.depth_conv)} == {2}
    assert ffn.conv[0].out_channels == 2
    for half in (GateFFN, SumFFN):
        assert (half(6, hidden=2).conv.out_channels, half(6, hidden=2).conv_out.in_channels) == (4, 2)
    skip = x[:, 6 - outputs:] if outputs <= 6 else 0
    deep = depth.conv2(depth.depth_conv(depth.conv1(x)))
    assert torch.allclose(depth(x), deep + skip, atol=1e-6)
    assert torch.allclose(block(x), ffn(deep + skip), atol=1e-5)


@torch.no_grad()
def test_residual_scaling_blocks():
    x = torch.randn(1, 4, 6, 8)
    down, up, res = Down(4, 5), Up(4, 5), Res(4)
    expected = leaky(down.conv2(leaky(down.conv1(x), 0.01)), 0.1) + pointwise(down.downsample, x[..., ::2, ::2])
    assert torch.allclose(down(x), expected, atol=1e-6)

    def shuffle(y: torch.Tensor) -> torch.Tensor:
        b, c, h, w = y.shape
        return y.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)

    inner = leaky(shuffle(pointwise(up.subpel_conv[0], x)), 0.01)
    expected = leaky(up.conv(inner), 0.1) + shuffle(pointwise(up.upsample[0], x))
    assert torch.allclose(up(x), expected, atol=1e-6)
    assert torch.allclose(res(x), x + res.conv2(leaky(res.conv1(leaky(x, 0.01)), 0.01)), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("inner", "hidden"), [(None, None), (4, 6)])
def test_channel_transform(inner, hidden):
    module, x = ChannelTransform(8, 1, 2, False, inner, hidden), torch.randn(1, 8, 3, 5)
    inner, hidden = inner or 8, hidden or 32
    block, = module.restor_layer.blocks
    block.attn.temperature.copy_(torch.tensor([0.5, 3.0]).view(2, 1, 1))
    nn.init.normal_(block.norm1.body.weight)

    def normalise(y: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
        centred = y - y.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return scaled * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)

    qkv = block.attn.qkv_dwconv(block.attn.qkv(normalise(x, block.norm1.body)))[0].reshape(3, inner, 15)
    heads, width = [], inner // 2
    for head in range(2):
        q, k, v = qkv[:, width * head:width * head + width]
        q, k = q / q.norm(dim=1, keepdim=True), k / k.norm(dim=1, keepdim=True)
        logits = q @ k.T * block.attn.temperature[head, 0, 0]
        heads.append(torch.softmax(logits, 1) @ v)
    y = x + block.attn.project_out(torch.cat(heads).reshape(1, inner, 3, 5))
    deep = block.mlp.project_in(normalise(y, block.norm2.body))
    assert deep.shape[1] == hidden
    y = y + block.mlp.project_out(0.5 * deep * (1 + torch.erf(deep / math.sqrt(2))))
    assert torch.allclose(module(x), x + y, atol=1e-5)
    assert all(layer.bias is None for layer in module.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("schedule", [INTRA_SCHEDULE, INTER_SCHEDULE])
@given(h=sides, w=sides)
@settings(deadline=None)
def test_passes_cover_every_position_once_and_in_their_class(schedule, h, w):
    order = passes(schedule, 8, (h, w), torch.device("cpu"))
    assert sorted(torch.cat(order).tolist()) == list(range(8 * h * w))
    for step, positions in zip(schedule, order):
        for position in positions.tolist():
            channel, row, column = position // (h * w), position // w % h, position % w
            assert step[channel * len(step) // 8] == 2 * (row % 2) + column % 2


def test_take_and_put():
    x = torch.randn(2, 3, 2, 2)
    where = torch.tensor([0, 5, 11])
    assert torch.equal(take(x, where), x.reshape(2, 12)[:, [0, 5, 11]])
    y = put(x, where, torch.zeros(2, 3)).reshape(2, 12)
    assert (y[:, where] == 0).all()
    rest = [i for i in range(12) if i not in where.tolist()]
    assert torch.equal(y[:, rest], x.reshape(2, 12)[:, rest])


def test_estimator_counts_bits_per_sample_and_name():
    coder = Estimator()
    residual = torch.tensor([[0.2, 1.6], [-0.4, 0.0]])
    scale = torch.tensor([[1.0, 2.0], [0.5, 50.0]])
    assert torch.equal(coder.code(residual, scale, Gaussian(), "ry"), torch.tensor([[0.0, 2.0], [-0.0, 0.0]]))
    coder.code(residual, scale, Gaussian(), "ry")

    def bits(value: float, s: float) -> float:
        return -math.log2(norm.cdf(value + 0.5, scale=s) - norm.cdf(value - 0.5, scale=s))

    expected = [2 * (bits(0, 1) + bits(2, 2)), 2 * (bits(0, 0.5) + bits(0, 50))]
    assert coder.bits["ry"].tolist() == pytest.approx(expected, rel=1e-5)
    impossible = Estimator()
    impossible.code(torch.full((1, 1), 1000.0), torch.ones(1, 1), Gaussian(), "ry")
    assert impossible.bits["ry"].item() == pytest.approx(-math.log2(1e-9), rel=1e-6)
