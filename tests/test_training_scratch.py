"""Training from nothing: initial weights, the stages of single networks, and the keys of recipes that need them."""
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training_stages import panning_clips
from training_helpers import phase_file

from conftest import write_frames
from dataloader.clips import find_clips
from dataloader.sampling import EpochOrder
from dataloader.source import PngFolder
from helpers import ROOT, full_config, tiny_config
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from models.entropy.distributions import SmoothNormal
from models.hytip.codec import HyTIP
from models.hytip.initial import initialise
from models.hytip.memory import HybridMemory as Memory
from models.hytip.motion import MotionCodec
from models.hytip.motion_initial import settle
from models.intra.dcvc_dc import IntraCodec
from models.layers.block_transform import stages
from models.layers.functional import warp
from models.layers.initial import Rates, draw
from models.rates import RATES
from seeded import seeded_video
from util.cli.arguments import parse_arguments
from util.cli.setup import untrained_model
from util.errors import InputError
from util.training.clip_loss import ClipLoss
from util.training.layout import use_channels_last
from util.training.losses import Distortion, LossExpression
from util.training.network import TrainedNetwork
from util.training.phases import Phase, read_phases

LAMBDAS = (0.0018, 0.0483)


def scratch_network(seed: int = 0) -> TrainedNetwork:
    torch.manual_seed(seed)
    network = TrainedNetwork(HyTIP(tiny_config())).train()
    initialise(network.codec)
    return network


def phase_of(stage: str, rate: str, distortion: str, **settings) -> Phase:
    return Phase(name="p", first_epoch=1, last_epoch=1, stage=stage, batch_size=2, lr=1e-3, rate=LossExpression(rate),
                 distortion=LossExpression(distortion), **settings)


STAGES = {"intra": ("i_rate", "distortion"), "flow": ("0.2*flow_roughness", "flow_distortion")}


def module_of(network: TrainedNetwork, phase: Phase, amp: bool = False) -> ClipLoss:
    plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0, 1, 0))
    return ClipLoss(network, plan, phase.loss(()), anchor=0, quality_level=5, lambdas=LAMBDAS, amp=amp)


@pytest.mark.parametrize("stage", STAGES)
def test_a_network_is_learnt_alone(stage):
    """The loss falls by more than half; the network of the stage moves, and no other does by a bit."""
    network, phase = scratch_network(), phase_of(stage, *STAGES[stage])
    chosen = network.select(phase)
    root = {"intra": "if_model.", "flow": "MENet."}[stage]
    assert chosen and all(name.startswith(root) for name in chosen)
    before = {name: value.clone() for name, value in network.entries()}
    module, frames = module_of(network, phase), panning_clips(32)[:, :phase.p_frames + 1]
    optimizer = torch.optim.Adam(chosen.values(), lr={"intra": 5e-4, "flow": 5e-3}[stage])
    losses = []
    while len(losses) < 150 and (len(losses) < 2 or losses[-1] > losses[0] / 2):
        loss = module(frames, torch.tensor([10, 50]), torch.tensor([1, 2]))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chosen.values(), 1)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    moved = {name for name, value in network.entries() if not torch.equal(value, before[name])}
    assert moved and moved <= set(chosen)
    if stage == "intra":
        assert {"if_model.q_scale_enc", "if_model.q_scale_dec"} <= moved


def test_the_gain_anchors_learn_and_nothing_coded_changes():
    """Both ends get gradients, the two in between have no say; the training gains are those of evaluation."""
    torch.manual_seed(0)
    codec = IntraCodec(tiny_config().intra).train()
    rates = torch.arange(RATES)
    trained = codec._gain(codec.q_basic_enc, codec.q_scale_enc, rates)
    trained.sum().backward()
    gradient = codec.q_scale_enc.grad.flatten()
    assert gradient[0] > 0 and gradient[3] > 0 and gradient[1] == gradient[2] == 0
    coded = codec.eval()._gain(codec.q_basic_enc, codec.q_scale_enc, rates)
    expected = np.exp(np.linspace(*np.log([float(np.float32(end)) for end in (0.6, 1.8)]), RATES))
    assert np.array_equal(coded[:, 0].flatten().detach().numpy(), expected.astype(np.float32))
    assert torch.allclose(trained, coded, rtol=1e-6, atol=0)
    with torch.no_grad():
        assert torch.equal(codec.train()._gain(codec.q_basic_enc, codec.q_scale_enc, rates), coded)


def test_the_intra_likelihood_of_training_is_that_of_coding():
    scale = torch.tensor([0.2, 0.5, 1.0, 4.0]).view(-1, 1)
    values = torch.linspace(-2, 2, 41)
    model = SmoothNormal()
    assert (model.smooth_probability(values, scale) - model.probability(values, scale)).abs().max() < 1e-6
    values, scale = torch.tensor([30.0, 1.5], requires_grad=True), torch.tensor([-1.0, 0.01], requires_grad=True)
    model.rate(values, scale)[1].backward()
    assert scale.grad[1] < 0, "a scale below the bound must be able to rise"


class Exact(Estimator):
    """Latents without rounding: what the transforms alone lose."""

    def code(self, residual, scale, distribution, name):
        super().code(residual, scale, distribution, name)
        return residual


class WithoutResidual(Estimator):
    """The latent of the residual is zero."""

    def code(self, residual, scale, distribution, name):
        return super().code(0 * residual if name == "ry" else residual, scale, distribution, name)


def small_codec(initial: bool = True, lambdas: tuple[float, float] = LAMBDAS) -> HyTIP:
    """The small model from nothing; without `initial` with PyTorch's own initial weights."""
    torch.manual_seed(0)
    codec = untrained_model(parse_arguments(["--test", "--model", "small"])).eval()
    if initial:
        initialise(codec, lambdas)
    return codec.requires_grad_(False)


def real_frames(count: int) -> list[torch.Tensor]:
    """1 3 128 192 in [0, 1]."""
    frames = islice(PngFolder(ROOT / "demo" / "Demo" / "BigBuckBunny"), count)
    return [frame[None, :, 40:168, 100:292] / 255 for frame in frames]


@pytest.mark.parametrize("initial", [True, False])
def test_a_p_frame_starts_as_the_warped_reference(initial):
    """And what it differs by, here also in brightness, is coded. PyTorch's own initial weights are far from it."""
    codec = small_codec(initial)
    reference, frame = real_frames(2)
    reference = 0.8 * reference
    coded = codec.code_frame(Exact(), frame, Memory(reference), FrameHeader(False, 30, (128, 192)))
    warped = warp(reference, coded.views["decoded_flow"])
    assert (Distortion()(coded.views["mc"], warped) < 1e-9) == initial
    assert (Distortion()(coded.frame, frame) < 0.5 * Distortion()(warped, frame)) == initial


@pytest.mark.parametrize("lambdas", [LAMBDAS, (0.0004, 0.0107)])
def test_nothing_fades_before_anything_is_learnt(lambdas):
    """A frame that does not move: after four P-frames without a residual half a decibel is lost to the transforms."""
    codec, (frame,) = small_codec(lambdas=lambdas), real_frames(1)
    memory = Memory(frame)
    for _ in range(4):
        memory = codec.code_frame(WithoutResidual(), frame, memory, FrameHeader(False, 30, (128, 192))).memory
    assert -10 * math.log10(Distortion()(memory.frame, frame)) > 40


def test_spynet_starts_with_steps_along_the_gradient():
    """It leaves less than a fifth of the difference between real frames, and between a frame and its shift."""
    codec = small_codec()
    reference, frame = real_frames(2)
    shifted = warp(reference, torch.tensor([3.0, -1.5]).view(1, 2, 1, 1).expand(1, 2, 128, 192))
    for moved in (frame, shifted):
        warped = warp(reference, codec.motion_estimation(moved, reference))
        assert Distortion()(warped, moved) < 0.2 * Distortion()(reference, moved)


def test_the_motion_codec_starts_with_means_of_vectors():
    """Of every 4x4 pixels, however long they are, where nothing is rounded and the codec is wide enough for all."""
    wide = MotionCodec(full_config().motion).requires_grad_(False)
    draw(wide)
    settle(wide, Rates(0.2, 5))
    means = 2 * torch.randn(1, 2, 16, 16) + torch.tensor([30.0, -40.0]).view(1, 2, 1, 1)
    flow = means.repeat_interleave(4, 2).repeat_interleave(4, 3) + 0.5 * torch.randn(1, 2, 64, 64)
    decoded = wide(Exact(), flow, Memory(torch.rand(1, 3, 64, 64)), 63).flow_hat
    for near in (decoded[..., ::4, ::4], decoded[..., 3::4, 3::4]):
        torch.testing.assert_close(near, F.avg_pool2d(flow, 4), atol=0.6, rtol=0)
    codec = small_codec()
    flow = F.interpolate(torch.randn(1, 2, 3, 4) * 4, size=(192, 256), mode="bicubic")
    first = codec.motion(Estimator(), flow, Memory(torch.rand(1, 3, 192, 256)), 30)
    memory = Memory(torch.rand(1, 3, 192, 256), flow=flow, ref_mv_feature=first.feature, ref_mv_y=first.y_hat)
    for coded in (first, codec.motion(Estimator(), flow, memory, 30)):
        assert (coded.flow_hat - flow).abs().mean() < 0.25 * flow.abs().mean()


def test_the_intra_codec_starts_as_a_transform_coder():
    """A real frame loses less than 3 levels to the transform, and rounding costs less at higher rates."""
    codec, (frame,) = small_codec(), real_frames(1)
    quality = {}
    for coder in (Exact, Estimator):
        for qp in (0, 31, 63):
            decoded = codec.intra(coder(), frame, (128, 192), qp)
            quality[coder, qp] = -10 * math.log10((decoded - frame).square().mean())
    assert min(quality[Exact, qp] for qp in (0, 31, 63)) > 38
    assert 25 < quality[Estimator, 0] < quality[Estimator, 31] - 3 < quality[Estimator, 63] - 6


def test_steps_follow_lambda():
    """What rounding costs an I-frame, a flow and a P-frame is a matter of lambda, not of the range that it is in."""
    (low, high), frames, lost = (0.001, 0.016), real_frames(2), {}
    flow = F.interpolate(torch.randn(1, 2, 3, 4) * 4, size=(128, 192), mode="bicubic")
    for name, lambdas, qp in (("low", (low, high), 0), ("at 42", (low, high), 42),
                              ("at 63", (low, low * 16 ** (2 / 3)), 63), ("high", (low, high), 63)):
        codec = small_codec(lambdas=lambdas)
        intra = codec.code_frame(Estimator(), frames[0], Memory(frames[0]), FrameHeader(True, qp, (128, 192)))
        inter = codec.code_frame(Estimator(), frames[1], Memory(frames[0]), FrameHeader(False, qp, (128, 192)))
        flow_hat = codec.motion(Estimator(), flow, Memory(frames[0]), qp).flow_hat
        lost[name] = torch.cat([Distortion()(intra.frame, frames[0]), Distortion()(flow_hat, flow),
                                Distortion()(inter.frame, frames[1])])
    assert (lost["high"] < lost["at 42"]).all() and (lost["at 42"] < lost["low"]).all()
    torch.testing.assert_close(lost["at 42"], lost["at 63"], rtol=0.1, atol=0)


@pytest.mark.parametrize("kept", [[12, 48, 192], [12, 20, 28, 30], [8, 12, 16]])
def test_the_stages_of_a_transform(kept):
    """Orthonormal, in order of their deviations; nothing is lost where everything is kept; subpel undoes kernel."""
    found = stages(kept, 0.95, 0.25)
    frame = torch.rand(1, 3, 32, 32)
    x, parts = frame, []
    for stage in found:
        identity = stage.rotation @ stage.rotation.T
        torch.testing.assert_close(identity, torch.eye(len(identity)).double())
        assert (stage.deviations.diff() <= 1e-9).all()
        parts.append(x)
        x = F.conv2d(x, stage.kernel(3), stride=2, padding=1)
    for stage, before in zip(reversed(found), reversed(parts)):
        x = F.pixel_shuffle(F.conv2d(x, stage.subpel()[:, :, None, None]), 2)
        assert x.shape == before.shape
    error = (x - frame).square().mean()
    assert error < 1e-10 if kept[-1] == 192 else 1e-4 < error < 1 / 12
    flat = torch.full((1, 3, 32, 32), 0.7)
    x = flat
    for stage in found:
        x = F.conv2d(x, stage.kernel(3), stride=2, padding=1)
    assert (x[:, 0] > 0.69 * 3 ** 0.5 * 2 ** len(found)).all(), "the first channel is the mean"


def test_initial_upsampling_has_no_checkerboard():
    up = scratch_network().codec.motion.mv_decoder.dec_2.upsample
    with torch.no_grad():
        out = up(torch.rand(1, up[0].in_channels, 3, 3))
    torch.testing.assert_close(out, F.interpolate(out[..., ::2, ::2], scale_factor=2, mode="nearest"))


@pytest.mark.parametrize("amp", [False, True])
def test_channels_last_is_the_same_computation(amp):
    gradients = []
    for last in (False, True):
        network, phase = scratch_network(), phase_of("fullgop", "rate", "distortion", rnn=1, max_p_frames=2)
        if last:
            use_channels_last(network)
            assert network.codec.inter.contextual_encoder.conv1.weight.is_contiguous(memory_format=torch.channels_last)
        chosen = network.select(phase)
        loss, _ = module_of(network, phase, amp)(panning_clips(), torch.tensor([10, 50]), torch.tensor([1, 2]))
        loss.mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in chosen.values() if p.grad is not None]))
    assert torch.cosine_similarity(*gradients, dim=0) > (0.98 if amp else 0.999999)


def test_the_learning_rate_rises_and_falls():
    phase = phase_of("fullgop", "rate", "distortion", final_lr=1e-4, warmup_steps=9)
    phase = replace(phase, first_epoch=3, last_epoch=6)
    assert phase.lr_at(3, 0, 100) == pytest.approx(1e-4, rel=0.01) and phase.lr_at(3, 4, 100) < phase.lr_at(3, 9, 100)
    assert phase.lr_at(5, 0, 100) == pytest.approx((1e-3 + 1e-4) / 2)
    assert phase.lr_at(6, 99, 100) == pytest.approx(1e-4, rel=0.01)
    stepped = replace(phase, final_lr=None, warmup_steps=0, milestones=(2,))
    assert [stepped.lr_at(epoch, 50, 100) for epoch in (3, 4, 5)] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_epochs_of_a_number_of_steps():
    """Clips repeat where there are too few; groups have equal shares, whatever their sizes, in no fixed places."""
    order = EpochOrder(0, 1, 12, 1.0, 4, samples=40, groups=(2, 10))
    assert order.steps == 10 and len(order.order) == 40
    small = order.order < 2
    assert small.sum() == 20 and np.bincount(order.order)[:2].tolist() == [10, 10]
    assert len({tuple(row) for row in small.reshape(10, 4).tolist()}) > 1
    assert sorted(np.bincount(EpochOrder(0, 1, 3, 1.0, 4, samples=7).order)) == [2, 2, 3]
    again = EpochOrder(0, 2, 12, 1.0, 4, samples=40, groups=(2, 10))
    assert not np.array_equal(order.order, again.order)


def test_clips_of_some_folders(tmp_path):
    for name, count in (("made/a", 3), ("made/b", 3), ("filmed/c", 4)):
        write_frames(tmp_path / name, seeded_video(count, 32, 32, 1))
    found = find_clips("folder", tmp_path, ("made", "filmed", "filmed"))
    assert [clip.folder.name for clip in found.clips] == ["a", "b", "c", "c"]
    assert found.groups == (2, 1, 1) and found.free
    with pytest.raises(InputError, match="no training clips of folder below .*drawn"):
        find_clips("folder", tmp_path, ("drawn", "made"))
    whole = find_clips("folder", tmp_path, ("drawn", "painted"))        # any folder of clips will do
    assert [clip.folder.name for clip in whole.clips] == ["c", "a", "b"] and whole.groups == ()


BASE = {"end_epoch": 1, "stage": "intra", "loss_on": {"R": "i_rate", "D": "distortion"}}


@pytest.mark.parametrize(("settings", "message"), [
    ({"final_lr": 1}, "final_lr 1.0 must lie above 0 and not above lr 0.001"),
    ({"final_lr": 1e-4, "milestones": [1]}, "without milestones"),
    ({"warmup_steps": -1}, "warmup_steps -1 must be at least 0"), ({"clip_norm": 0}, "clip_norm 0.0 above 0"),
    ({"steps_per_epoch": 0}, "steps_per_epoch 0 must be at least 1"),
    ({"steps_per_epoch": 5, "train_len": 0.5}, "without train_len"),
    ({"crop_size": 8}, "crop_size 8 must be at least 16"), ({"amp": "float16"}, "amp 'float16' must be off"),
    ({"lambdas": [0.02, 0.01]}, "in ascending order"), ({"lambdas": 3}, "lambdas 3 cannot be used"),
    ({"clips": "real"}, "clips 'real' cannot be used"), ({"validate": "no"}, "validate 'no' cannot be used"),
    ({"loss_on": {"R": "rate", "D": "distortion"}}, "stage intra knows the terms distortion, i_rate only, not rate"),
    ({"stage": "flow"}, "stage flow knows the terms")])
def test_wrong_keys_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        read_phases(phase_file(tmp_path / "p.yml", {"p": {**BASE, **settings}}))


def test_the_keys_of_a_phase(tmp_path):
    settings = {**BASE, "final_lr": 1e-4, "warmup_steps": 5, "clip_norm": 1.0, "steps_per_epoch": 7, "crop_size": 64,
                "amp": "off", "clips": ["real"], "lambdas": [0.001, 0.01], "validate": False}
    phase, = read_phases(phase_file(tmp_path / "p.yml", {"p": settings}))
    assert (phase.amp, phase.clips, phase.lambdas, phase.validate) == ("off", ("real",), (0.001, 0.01), False)
    assert Distortion().lambdas_of_rates(5, phase.lambdas)[[0, 63]].tolist() == pytest.approx([0.001, 0.01])
    assert phase.p_frames == 0 and phase.random_start
    path = tmp_path / "q.yml"
    path.write_text("p: {end_epoch: 1, stage: intra, loss_on: {R: i_rate, D: distortion}, batch_size: 1, lr: 1, "
                    "amp: off}")
    assert read_phases(path)[0].amp == "off"
