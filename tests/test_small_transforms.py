"""The first check of a small configuration: what its transforms lose where nothing is rounded, before any training.

The computed start (models/layers/block_transform.py) shows in seconds what training can only approach: latents that are
too narrow cap the quality at every rate.
"""
import pytest
import torch
import torch.nn.functional as F

from dataloader.open import FirstFrames
from dataloader.source import PngFolder
from helpers import Unrounded
from models.catalogue import configure, find_model
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from models.hytip.codec import HyTIP
from models.hytip.initial import initialise
from util.demo import CLIP

WANTED = 42.0
"""PSNR in dB, at the highest rate."""

FRAME_TYPES = (0, 1, 0, 2, 0, 2, 0, 2, 0)


def small_codec(**changes: dict) -> HyTIP:
    """The small model from the computed start; `changes` as of `configure`."""
    torch.manual_seed(0)
    codec = HyTIP(configure(find_model("small"), changes=changes)).eval()
    initialise(codec, (0.0005, 0.05))
    return codec.requires_grad_(False)


@pytest.fixture(scope="module")
def wide():
    return small_codec()


def frames_of(detail: int) -> list[torch.Tensor]:
    """The first frames of the demo clip, 1 3 112 192; made smaller by `detail`, they have more in every block."""
    frames = [F.avg_pool2d(frame[None] / 255, detail) for frame in FirstFrames(PngFolder(CLIP), 9)]
    top, left = [(side - wanted) // 2 for side, wanted in zip(frames[0].shape[-2:], (112, 192))]
    return [frame[..., top:top + 112, left:left + 192] for frame in frames]


def qualities(codec: HyTIP, frames: list[torch.Tensor]) -> list[float]:
    """PSNR of an I-frame and of the P-frames after it."""
    memory, result = None, []
    for n, frame in enumerate(frames):
        header = FrameHeader(intra=n == 0, qp=63, size=(112, 192), frame_type=FRAME_TYPES[n])
        coded = codec.code_frame(Unrounded(), frame, memory, header)
        memory = coded.memory
        result.append(-10 * (coded.frame.clamp(0, 1) - frame).square().mean().log10().item())
    return result


def test_unrounded_frames_reach_high_quality(wide):
    """The I-frame and eight P-frames, although no network has learnt anything yet."""
    assert min(qualities(wide, frames_of(1))) > WANTED


def test_unrounded_frames_full_of_detail_do_too(wide):
    """P-frames, where SPyNet has yet to learn, lose what moves; narrow latents lose what stands still, too."""
    detailed = frames_of(2)
    assert qualities(wide, detailed)[0] > WANTED
    still = [detailed[0]] * 3
    assert min(qualities(wide, still)) > WANTED
    assert max(qualities(small_codec(intra={"channel_N": 96}, inter={"g_ch_16x": 60}), still)) < WANTED - 2


def test_unrounded_strong_colours(wide):
    """Black, white and the purest colours in fields of 64 pixels: no activation is outside of where it is linear."""
    colours = torch.tensor([(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]).float()
    frame = colours.T.reshape(1, 3, 2, 3).repeat_interleave(64, 2).repeat_interleave(64, 3)[..., :112, :]
    assert qualities(wide, [frame])[0] > WANTED


def test_little_of_the_prediction_passes_through_the_decoder(wide):
    """Where the residual may be negative; where it is clamped to [0, 1], as in the release, half does."""
    frame = frames_of(1)[0]
    for codec, mask in ((wide, 0.95), (small_codec(inter={"clamp_residual": True}), 0.5)):
        coded = codec.code_frame(Estimator(), frame, codec.remember_frame(frame), FrameHeader(False, 30, (112, 192)))
        torch.testing.assert_close(coded.views["mask"], torch.full((1, 1, 112, 192), mask))


def test_a_darker_frame_is_coded(wide):
    """The residual is negative everywhere: without the clamp of the release it arrives."""
    frame = frames_of(1)[0]
    header = FrameHeader(False, 63, (112, 192))
    coded = wide.code_frame(Unrounded(), 0.5 * frame, wide.remember_frame(frame), header)
    assert -10 * (coded.frame - 0.5 * frame).square().mean().log10() > 40


def test_the_frame_generator_has_as_many_u_nets_as_configured():
    def u_nets(codec: HyTIP) -> list[str]:
        return [name for name, _ in codec.inter.recon_generation_net.named_children() if "unet" in name]
    assert u_nets(small_codec(inter={"unets": 2})) == ["unet_1", "unet_2"]           # the released names
    assert u_nets(small_codec()) == ["unet_1"]
