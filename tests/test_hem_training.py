"""What training asks of DCVC-HEM: its partial paths, gradients, and where its weights start."""
import math

import pytest
import torch
from torch import nn

from models.codec import FrameHeader
from models.entropy.training import SampleNoise, TrainingEstimator, no_noise
from models.hem.codec import DCVCHEM
from models.hem.training import initialise
from seeded import seeded_video
from seeded_hem import TINY_HEM, seeded_hem
from util.training.losses import Distortion
from util.training.network import TrainedNetwork
from util.training.phases import TRAIN_CFG, read_phases
from util.training.schedule import read_schedule
from util.training.stages import ClipCoder, Clips, StagePlan
from util.training.steps import OptimizerSteps

SIZE = (64, 64)
ANCHOR_QPS = torch.tensor((0, 63))


@pytest.fixture
def codec():
    return seeded_hem().train().requires_grad_(True)


def clips(frames: int) -> Clips:
    """Two clips, at the first and the last anchor."""
    both = torch.stack([seeded_video(frames, *SIZE, salt) for salt in (21, 22)])
    return Clips(both, ANCHOR_QPS, SampleNoise(torch.tensor((1, 2))))


def plan(stage: str, terms: set[str], p_frames: int, path: str | None = None, through: bool = False) -> StagePlan:
    return StagePlan(stage=stage, path=path, p_frames=p_frames, detach_frame=not through, detach_flow=False,
                     frame_types=(0,) * (p_frames + 1), terms=frozenset(terms))


def lacking(codec: nn.Module, *roots: str) -> list[str]:
    """Parameters of these networks whose gradient is absent, not finite, or zero throughout.

    The only hidden unit of a narrow squeeze-and-excitation may be silent on all clips; then zeros are right.
    """
    return [name for name, parameter in codec.named_parameters() if name.split(".")[0] in roots
            and (parameter.grad is None or not parameter.grad.isfinite().all()
                 or not (parameter.grad.any() or ".fc." in name))]


def test_every_weight_of_a_p_frame_learns(codec):
    """Two P-frames: the first uses feature_adaptor_I, the second what was remembered."""
    terms = ClipCoder(codec, plan("fullgop", {"rate", "distortion"}, 2, through=True), Distortion())(clips(3))
    sum((each["rate"] + 100 * each["distortion"]).sum() for each in terms).backward()
    assert lacking(codec, "motion_estimation", "motion", "inter") == []
    assert all(parameter.grad is None for parameter in codec.intra.parameters())
    for anchors in (codec.motion.mv_y_q_scale, codec.inter.y_q_scale):
        assert anchors.grad[[0, 3]].all() and not anchors.grad[[1, 2]].any()


def test_every_weight_of_the_intra_codec_learns(codec):
    terms, = ClipCoder(codec, plan("intra", {"i_rate", "distortion"}, 0), Distortion())(clips(1))
    (terms["i_rate"] + 100 * terms["distortion"]).sum().backward()
    assert lacking(codec, "intra") == []
    assert codec.intra.q_scale.grad[[0, 3]].all() and not codec.intra.q_scale.grad[[1, 2]].any()


def test_the_motion_alone(codec):
    """The flow and its bits are those of the whole P-frame; nothing of the frame is coded."""
    first, whole, alone = (TrainingEstimator(no_noise) for _ in range(3))
    frames = clips(2).frames
    memory = codec.code_frame(first, frames[:, 0], None, FrameHeader(True, ANCHOR_QPS, SIZE)).memory
    header = FrameHeader(False, ANCHOR_QPS, SIZE)
    expected = codec.code_frame(whole, frames[:, 1], memory, header)
    coded = codec.partial_paths()["motion"](alone, frames[:, 1], memory, header)
    assert alone.bits.keys() == {"mz", "my"}
    assert all(torch.equal(bits, whole.bits[name]) for name, bits in alone.bits.items())
    assert torch.equal(coded.views["decoded_flow"], expected.views["decoded_flow"])
    assert torch.equal(coded.memory.frame, frames[:, 1])
    assert torch.equal(coded.memory.ref_mv_y, expected.memory.ref_mv_y)
    assert coded.memory.ref_feature is None and coded.memory.ref_y is None


def test_the_stage_of_motion_trains_motion(codec):
    stage = plan("2Pframes", {"m_rate", "warped_distortion"}, 2, path="motion")
    terms = ClipCoder(codec, stage, Distortion())(clips(3))
    sum((each["m_rate"] + 100 * each["warped_distortion"]).sum() for each in terms).backward()
    assert lacking(codec, "motion_estimation", "motion") == []
    assert all(parameter.grad is None for parameter in codec.inter.parameters())


@pytest.mark.parametrize("through", [False, True])
def test_gradients_pass_the_reference_where_they_shall(codec, through):
    """The loss of the last frame alone reaches what made the first one's frame by another way than its features."""
    coder = ClipCoder(codec, plan("fullgop", {"m_rate"}, 2, through=through), Distortion())
    last = coder(clips(3))[-1]
    last["m_rate"].sum().backward()
    # The motion of the second frame depends on the first one's frame only by motion estimation.
    bias = codec.inter.recon_generation_net.recon_conv.bias.grad
    assert (bias is not None and bool(bias.any())) == through


def test_the_rate_is_that_of_noisy_values(codec):
    frames = clips(1).frames
    header = FrameHeader(True, ANCHOR_QPS, SIZE)
    plain, noisy = TrainingEstimator(no_noise), TrainingEstimator(SampleNoise(torch.tensor((1, 2))))
    first, second = (codec.code_frame(coder, frames[:, 0], None, header) for coder in (plain, noisy))
    assert torch.equal(first.frame, second.frame)                       # the signal path knows no noise
    assert all((plain.bits[name] != noisy.bits[name]).all() for name in ("iz", "iy"))


def test_initial_weights():
    torch.manual_seed(0)
    codec = DCVCHEM(TINY_HEM)
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    initialise(codec)
    convolutions = {name for name, module in codec.named_modules() if isinstance(module, nn.Conv2d)}
    for name, value in codec.state_dict().items():
        layer, leaf = name.rsplit(".", 1)
        if layer not in convolutions:
            assert torch.equal(value, before[name]), name
        elif leaf == "bias":
            assert (value == 0.01).all(), name
        elif value.numel() > 400:
            fans = sum(value.shape[:2]) * value[0, 0].numel()
            assert value.std().item() == pytest.approx(2 / math.sqrt(fans), rel=0.25), name
    for name, value in codec.named_parameters():
        if name.endswith(("q_scale", "q_basic")):
            assert (value == 1).all(), name


def test_samples_are_drawn_at_the_anchors():
    assert tuple(DCVCHEM.for_training().qps) == (0, 21, 42, 63)


def test_lambdas_of_the_anchors():
    """Log-linear between the QPs that they belong to, as the steps of quantisation are."""
    lambdas = [85, 170, 380, 840]
    result = Distortion().lambdas_of_rates(5, lambdas)
    assert result[[0, 21, 42, 63]].tolist() == pytest.approx(lambdas, rel=1e-6)
    assert result[30].item() == pytest.approx(170 * (380 / 170) ** (9 / 21), rel=1e-5)


@pytest.mark.parametrize("file, names", [
    ("intra", ["intra", "intra_end"]), ("motion", ["motion", "motion_with_rate"]),
    ("inter", ["contexts", "contexts_with_rate", "all"]),
    ("frames", ["three_frames", "four_frames", "five_frames", "six_frames"]), ("finetune", ["six_frames"])])
def test_the_recipe_trains_what_it_says(codec, file, names):
    network = TrainedNetwork(codec)
    phases = read_phases(TRAIN_CFG / "hem" / f"{file}.yml")
    assert [phase.name for phase in phases] == names
    trained = {"intra": {"intra"}, "intra_end": {"intra"}, "contexts": {"inter"}, "contexts_with_rate": {"inter"}}
    trained |= dict.fromkeys(("motion", "motion_with_rate"), {"motion_estimation", "motion"})
    for phase in phases:
        roots = {name.split(".")[0] for name in network.select(phase)}
        assert roots == trained.get(phase.name, {"motion_estimation", "motion", "inter"})
        assert math.isinf(phase.skip_above) == (file in ("intra", "motion", "inter"))
        assert [round(value * 255 ** 2 / 3) for value in phase.lambdas] == [85, 170, 380, 840]
        assert phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0,) * 7).detach_frame == (
            phase.stage != "fullgop")


def test_the_recipe_is_complete():
    steps = read_schedule(TRAIN_CFG / "hem" / "schedule.yml")
    assert [step.name for step in steps] == ["intra", "motion", "inter", "frames"]
    assert [step.restore for step in steps] == ["scratch", "same", "same", "same"]


def test_entries_of_a_checkpoint_find_their_network(codec):
    """Files have two roots, training has a name for each of the four networks."""
    network = TrainedNetwork(codec)
    layout = network.layout()["state_dict"]
    assert {network.plain_name(name) for name in layout} == {name for name, _ in network.entries()}
    assert network.plain_name("image.q_scale") == "intra.q_scale"
    assert network.plain_name("video.optic_flow.moduleBasic.0.conv1.bias") == (
        "motion_estimation.moduleBasic.0.conv1.bias")
    assert network.plain_name("video.mv_y_q_scale") == "motion.mv_y_q_scale"
    assert network.plain_name("video.y_q_scale") == "inter.y_q_scale"


def test_a_step_with_a_huge_loss_is_taken_where_the_phase_says_so():
    for bound, taken in ((1e4, False), (math.inf, True)):
        weight = nn.Parameter(torch.ones(1))
        steps = OptimizerSteps([weight], lr=0.1, lag=0, clip_norm=1.0, skip_above=bound)
        weight.grad = torch.full((1,), 1e9)
        steps.take(torch.tensor(1e15), torch.zeros(1))
        assert [report.taken for report in steps.drain()] == [taken]
        assert (weight.item() != 1) == taken
