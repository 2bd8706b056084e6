"""The first check of a small configuration: what its transforms lose where nothing is rounded, before any training.

The computed start (models/layers/block_transform.py) shows in seconds what training can only approach: latents that are
too narrow cap the quality at every rate.
"""
import pytest
import torch
import torch.nn.functional as F

from dataloader.open import FirstFrames
from dataloader.source import PngFolder
from helpers import ROOT, Unrounded
from models.catalogue import build_codec, find_model
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from models.hytip.codec import HyTIP
from models.hytip.initial import initialise
from util.checkpoint import load_model
from util.demo import CLIP
from util.evaluation.complexity import count_macs

NEXT = str(ROOT / "config" / "small_next" / "hytip.yml")

WANTED = 42.0
"""PSNR in dB, at the highest rate."""

FRAME_TYPES = (0, 1, 0, 2, 0, 2, 0, 2, 0)


def codec_of(model: str) -> HyTIP:
    """From the computed start."""
    torch.manual_seed(0)
    codec = build_codec(find_model(model)).eval()
    initialise(codec, (0.0005, 0.05))
    return codec.requires_grad_(False)


@pytest.fixture(scope="module")
def wide():
    return codec_of(NEXT)


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
    assert max(qualities(codec_of("small"), still)) < WANTED - 2


def test_unrounded_strong_colours(wide):
    """Black, white and the purest colours in fields of 64 pixels: no activation is outside of where it is linear."""
    colours = torch.tensor([(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]).float()
    frame = colours.T.reshape(1, 3, 2, 3).repeat_interleave(64, 2).repeat_interleave(64, 3)[..., :112, :]
    assert qualities(wide, [frame])[0] > WANTED


def test_little_of_the_prediction_passes_through_the_decoder(wide):
    """Where the residual may be negative; where it is clamped to [0, 1], as in the release, half does."""
    frame = frames_of(1)[0]
    for codec, mask in ((wide, 0.95), (codec_of("small"), 0.5)):
        coded = codec.code_frame(Estimator(), frame, codec.remember_frame(frame), FrameHeader(False, 30, (112, 192)))
        torch.testing.assert_close(coded.views["mask"], torch.full((1, 1, 112, 192), mask))


def test_a_darker_frame_is_coded(wide):
    """The residual is negative everywhere: without the clamp of the release it arrives."""
    frame = frames_of(1)[0]
    header = FrameHeader(False, 63, (112, 192))
    coded = wide.code_frame(Unrounded(), 0.5 * frame, wide.remember_frame(frame), header)
    assert -10 * (coded.frame - 0.5 * frame).square().mean().log10() > 40


def test_the_budget(wide):
    assert sum(parameter.numel() for parameter in wide.parameters()) <= 5e6
    assert count_macs(wide, decode=False).total <= 90
    assert count_macs(wide, decode=True).total <= 60
    config = wide.config
    assert config.inter.has_mask and config.inter.has_ctm and not config.inter.no_context and config.variable_rate
    assert all(vars(config.inter.buffer).values()) and all(vars(config.motion.buffer).values())


def test_the_frame_generator_has_as_many_u_nets_as_configured():
    def u_nets(model: str) -> list[str]:
        return [name for name, _ in codec_of(model).inter.recon_generation_net.named_children() if "unet" in name]
    assert u_nets("small") == ["unet_1", "unet_2"]                 # the released names
    assert u_nets(NEXT) == ["unet_1"]


def test_the_milestone_belongs_to_the_configuration(wide):
    """It loads whole, and has learnt: I-frames are better at low rates than at the start, in bits and dB, and what
    stands still has next to no flow."""
    learnt = build_codec(find_model(NEXT)).eval().requires_grad_(False)
    load_model(learnt, ROOT / "models" / "small_next" / "intra_flow.pth.tar")
    frame, results = frames_of(2)[0], []
    for codec in (wide, learnt):
        coder = Estimator()
        coded = codec.code_frame(coder, frame, None, FrameHeader(intra=True, qp=0, size=(112, 192)))
        results.append((sum(coder.bits.values()).item(), (coded.frame.clamp(0, 1) - frame).square().mean().item()))
    (bits, error), (fewer, less) = results
    assert fewer < 0.7 * bits and less < error
    assert learnt.motion_estimation(frame, frame).abs().mean() < 0.1        # 0.2 to 0.3 without clips that stand still
