"""Vectors of blocks from a flow of pixels (models/flow/block_fit.py)."""
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_helpers import codec_of

from config import load_config
from helpers import seeded_model, tiny_config
from models.flow.block_fit import fit_blocks
from models.flow.spynet import MotionEstimationConfig
from models.layers.functional import warp
from util.coding.gop import CodingPlan
from util.errors import InputError


def waves(height: int, width: int, dx: float = 0, dy: float = 0) -> torch.Tensor:
    """A smooth pattern without flat places, 1 3 H W, seen (dx, dy) pixels further."""
    y, x = torch.meshgrid(torch.arange(height) + float(dy), torch.arange(width) + float(dx), indexing="ij")
    planes = [0.25 * torch.sin(x / a + y / b) + 0.2 * torch.cos(x / b - y / a) for a, b in ((3, 5), (4, 7), (6, 3))]
    return 0.5 + torch.stack(planes)[None].float()


def constant(vector: tuple[float, float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(vector).view(1, 2, 1, 1).expand(1, 2, *like.shape[-2:])


def test_noise_on_the_flow_is_taken_out_and_an_error_of_all_of_it_mended():
    """Means of blocks would keep the error."""
    reference, current = waves(64, 128), waves(64, 128, 1.6, -0.7)
    truth = constant((1.6, -0.7), current)
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    flow = truth + torch.tensor((0.3, -0.2)).view(1, 2, 1, 1) + 0.3 * noise
    means = torch.nn.functional.avg_pool2d(flow, 8)
    fitted = fit_blocks(flow, current, reference, 8, 1e-3)
    inside = (..., slice(8, -8), slice(8, -8))
    assert (fitted - truth)[inside].abs().mean() < 0.3 * (means - truth[..., ::8, ::8]).abs().mean()
    error, before = ((warp(reference, f) - current)[inside].square().mean() for f in (fitted, flow))
    assert error < 0.1 * before


def test_where_nothing_is_seen_a_block_moves_with_its_surroundings():
    reference, current = waves(128, 128), waves(128, 128, 2, 1)
    reference[..., 33:65, 34:66] = current[..., 32:64, 32:64] = 0.5
    flow = constant((2.0, 1.0), current).clone()
    flow[..., 36:60, 36:60] = torch.tensor((-3.0, 5.0)).view(1, 2, 1, 1)
    fitted = fit_blocks(flow, current, reference, 8, 0.05)
    flat = fitted[..., 40:56, 40:56]
    assert (flat - torch.tensor((2.0, 1.0)).view(1, 2, 1, 1)).abs().max() < 1        # as it came: 5 and 4


@given(st.integers(0, 1000), st.floats(1e-2, 10.0))
@settings(max_examples=25, deadline=None)
def test_the_vector_of_a_single_block_is_the_best(seed, prior):
    """Nothing near it has a lower sum of squares; the picture is one block, and its surroundings the mean vector."""
    generator = torch.Generator().manual_seed(seed)
    current, reference = torch.rand((2, 1, 3, 64, 64), generator=generator).double()
    flow = torch.randn((1, 2, 64, 64), generator=generator).double()
    moved = warp(reference, flow)

    def slopes(x):
        wide = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2, (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2

    gx, gy = ((a + b) / 2 for a, b in zip(slopes(moved), slopes(current)))
    around = flow.mean((2, 3), keepdim=True)

    def cost(vector):
        change = vector - flow
        error = moved + gx * change[:, :1] + gy * change[:, 1:] - current
        return error.square().sum() + prior * (vector - around).square().sum()

    best = fit_blocks(flow, current, reference, 64, prior)[..., :1, :1]
    for step in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert cost(best) < cost(best + torch.tensor(step).view(1, 2, 1, 1))


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (33, 130), (5, 3)])
@pytest.mark.parametrize("side", [1, 4, 64])
def test_any_size_and_constant_in_blocks(size, side):
    generator = torch.Generator().manual_seed(1)
    current, reference = torch.rand((2, 2, 3, *size), generator=generator)
    flow = torch.randn((2, 2, *size), generator=generator)
    fitted = fit_blocks(flow, current, reference, side, 0.05)
    assert fitted.shape == flow.shape and fitted.isfinite().all()
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            block = fitted[..., top:top + side, left:left + side]
            assert torch.equal(block, block[..., :1, :1].expand_as(block))


def test_blocks_weigh_what_their_pixels_tell():
    """Where three quarters of a block are flat, they take its vector, and that is the one of the block alone."""
    reference, current = waves(64, 64), waves(64, 64, 1.2, 0.4)
    for frame in (reference, current):
        frame[..., 31:, :] = frame[..., :, 31:] = 0.5
    flow = 0.5 * torch.randn((1, 2, 64, 64), generator=torch.Generator().manual_seed(2))
    whole, halves = (fit_blocks(flow, current, reference, side, 20.0) for side in (64, 32))
    assert torch.allclose(halves[..., 40:, 40:], whole[..., 40:, 40:], atol=1e-4)
    assert not torch.allclose(halves[..., :32, :32], whole[..., :32, :32], atol=1e-2)


def test_the_gradient_reaches_the_flow():
    """A change of the whole flow is a change of the vectors, as far as the gradient says."""
    reference, current = waves(64, 64), waves(64, 64, 1)
    flow = torch.zeros(1, 2, 64, 64, requires_grad=True)
    fit_blocks(flow, current, reference, 16, 0.05)[:, 0].mean().backward()
    assert (flow.grad != 0).float().mean() > 0.9
    assert flow.grad.sum((0, 2, 3)).tolist() == pytest.approx([1, 0], abs=1e-3)


@pytest.mark.parametrize("side", [0, 3, 128])
def test_bad_settings(side, tmp_path):
    path = tmp_path / "MENet.yml"
    path.write_text(f"model_architecture: MENet\nmodel_params: {{block_side: {side}}}\n")
    with pytest.raises(InputError, match="block_side"):
        load_config(path, MotionEstimationConfig)


def test_a_decoder_need_not_know():
    """Streams of an encoder that fits blocks decode without, to the same frames."""
    config = tiny_config()
    fitting = replace(config, motion_estimation=replace(config.motion_estimation, block_side=4))
    frames = [(255 * waves(64, 96, 1.5 * n)[0]).to(torch.uint8) for n in range(3)]
    plain, encoder = (codec_of(seeded_model(c)) for c in (config, fitting))
    (parts, written), (_, other) = (whole_stream(codec, frames) for codec in (encoder, plain))
    assert written != other
    for part, frame in zip(parts, plain.decode(written), strict=True):
        assert torch.equal(part.frame, frame.frame)


def whole_stream(codec, frames):
    parts = list(codec.encode(frames, CodingPlan(qp=30)))
    return [part for part in parts if part.number is not None], b"".join(part.data for part in parts)
