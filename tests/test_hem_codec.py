"""How DCVC-HEM codes a sequence: one coding path, the dual spatial prior, what is remembered."""
from dataclasses import replace

import pytest
import torch

from models.catalogue import configure, find_model
from models.codec import FrameHeader
from models.entropy.coder import Recorder, Replayer
from models.hem.config import HemConfig
from models.hem.latent import code_with_dual_prior
from models.spatial_prior import DUAL_SCHEDULE, passes
from seeded import seeded_video
from seeded_hem import TINY_HEM, seeded_hem
from util.checkpoint import fingerprint

SIZE = (64, 128)


@pytest.fixture(scope="module")
def codec():
    return seeded_hem()


@pytest.fixture(scope="module")
def clip():
    return seeded_video(4, *SIZE, 31)


def code(codec, clip, intra=(0,), qp=30, coder=Recorder):
    """The coded frames of a clip and what the coders saw."""
    memory, coded, coders = None, [], []
    for n, frame in enumerate(clip):
        coders.append(coder())
        coded.append(codec.code_frame(coders[-1], frame[None], memory, FrameHeader(n in intra, qp, SIZE)))
        memory = coded[-1].memory
    return coded, coders


@pytest.mark.parametrize("qp", [0, 30, 63])
def test_a_decoder_comes_to_the_same_frames(codec, clip, qp):
    coded, coders = code(codec, clip, qp=qp)
    memory = None
    for n, (frame, coder) in enumerate(zip(coded, coders)):
        replayer = Replayer(coder.symbols)
        decoded = codec.code_frame(replayer, None, memory, FrameHeader(n == 0, qp, SIZE))
        replayer.finish()
        assert torch.equal(decoded.frame, frame.frame)
        memory = decoded.memory


def test_symbols_come_in_the_order_that_the_codec_declares(codec, clip):
    _, coders = code(codec, clip[:2])
    for coder, intra in zip(coders, (True, False)):
        names = [name for name, _ in coder.symbols]
        latents = codec.latents(intra)
        assert names == [name for latent in latents for name in ([latent.name] if latent.name[1] == "z" else
                                                                 [latent.name] * 2)]
        for latent in latents:
            count = sum(symbols.numel() for name, symbols in coder.symbols if name == latent.name)
            assert count == torch.Size(latent.shape(SIZE)).numel()


def test_an_i_frame_forgets_everything(codec, clip):
    fresh, _ = code(codec, clip[2:])
    later, coders = code(codec, clip, intra=(0, 2))
    for expected, actual in zip(fresh, later[2:]):
        assert torch.equal(expected.frame, actual.frame)
    assert list(later[2].memory.tensors()) == ["frame"]


def test_each_latent_conditions_the_next_frame(codec, clip):
    """Without a remembered tensor the next frame is coded in another way."""
    coded, _ = code(codec, clip[:2])
    header = FrameHeader(False, 30, SIZE)

    def bits(**forgotten):
        coder = Recorder()
        codec.code_frame(coder, clip[2:3], replace(coded[1].memory, **forgotten), header)
        return {name: value.item() for name, value in coder.bits.items()}
    base = bits()
    assert bits(ref_mv_y=None)["my"] != base["my"] and bits(ref_mv_y=None)["mz"] == base["mz"]
    assert bits(ref_y=None)["ry"] != base["ry"] and bits(ref_y=None)["rz"] == base["rz"]
    assert bits(ref_feature=None)["rz"] != base["rz"] and bits(ref_feature=None)["my"] == base["my"]


def test_absent_latents_count_as_zeros(codec, clip):
    coded, _ = code(codec, clip[:1])
    zeros = {"ref_y": torch.zeros(1, TINY_HEM.channel_M, 4, 8), "ref_mv_y": torch.zeros(1, TINY_HEM.channel_mv, 4, 8)}
    header = FrameHeader(False, 30, SIZE)
    frames = [codec.code_frame(Recorder(), clip[1:2], memory, header).frame
              for memory in (coded[0].memory, replace(coded[0].memory, **zeros))]
    assert torch.equal(*frames)


def test_references_are_clamped_except_in_training(clip):
    codec = seeded_hem()
    for bias in (codec.intra.refine[1].bias, codec.inter.recon_generation_net.recon_conv.bias):
        bias += 0.5                                                     # brighter than white in places
    bounded, _ = code(codec, clip[:2])
    unbounded, _ = code(codec.train(), clip[:2])
    assert all(frame.memory.frame.max() == 1 for frame in bounded)
    assert all(frame.memory.frame.max() > 1 for frame in unbounded)
    assert all(frame.memory.frame is frame.frame for frame in bounded + unbounded)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 8)])
def test_the_two_passes_are_a_checkerboard(size):
    first, second = passes(DUAL_SCHEDULE, 6, size, torch.device("cpu"))
    assert sorted(torch.cat((first, second)).tolist()) == list(range(6 * size[0] * size[1]))
    for position in first.tolist():
        channel, row, column = position // (size[0] * size[1]), position // size[1] % size[0], position % size[1]
        assert (row + column) % 2 == (channel >= 3)


def test_what_the_dual_prior_sees():
    """Half of the values, the first means and scales and the bounded steps, in the released order."""
    torch.manual_seed(0)
    y, step, scale, mean = (torch.randn(1, 4, 2, 4) for _ in range(4))
    scale = scale.abs() + 0.5
    seen, calls = [], []

    def spatial_prior(x):
        seen.append(x)
        scale_a, mean_a, scale_b, mean_b = (torch.full((1, 2, 2, 4), value) for value in (2.0, 0.25, 3.0, -0.25))
        return torch.cat((scale_a, mean_a, scale_b, mean_b), 1)

    class Coder(Recorder):
        def code(self, residual, scale, distribution, name):
            calls.append(scale)
            return residual.round()
    y_hat = code_with_dual_prior(Coder(), y, torch.cat((step, scale, mean), 1), spatial_prior, None, "ry")
    known, means, scales, steps = seen[0].chunk(4, 1)
    assert torch.equal(means, mean) and torch.equal(scales, scale) and torch.equal(steps, step.clamp(min=0.5))
    even = (torch.arange(2)[:, None] + torch.arange(4)) % 2 == 0
    first = torch.stack((even, even, ~even, ~even))[None]               # what pass 0 codes
    y = y / steps
    assert torch.equal(known, torch.where(first, (y - mean).round() + mean, 0))
    new_mean = torch.tensor((0.25, 0.25, -0.25, -0.25)).view(1, 4, 1, 1)
    assert torch.equal(y_hat, torch.where(first, known, (y - new_mean).round() + new_mean) * steps)
    assert torch.equal(calls[0], scale[first][None])
    assert torch.equal(calls[1], torch.tensor((2.0, 2.0, 3.0, 3.0)).view(1, 4, 1, 1).expand_as(y)[~first][None])


def test_the_configuration_file_has_the_released_widths():
    assert configure(find_model("dcvc-hem")) == HemConfig()


def test_the_fingerprint_knows_the_rate_points():
    """They say what a QP means."""
    one, other = (seeded_hem(replace(TINY_HEM, rate_points=points)) for points in (None, 4))
    assert fingerprint(one) != fingerprint(other)
